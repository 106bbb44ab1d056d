-- After a full load: of a share ($1 of $2) at $3, exactly the problems given ($4 ids, $5 fields, $6 messages, $8 since)
-- remain.
with found as (
    select id, field, message, min(since) as since
    from unnest($4::bigint[], $5::text[], $6::text[], $8::timestamptz[]) as found (id, field, message, since)
    group by id, field, message
),
gone as (
    delete from endpoint_problems p
    where location = $3 and ((endpoint_id % $2::bigint) + $2::bigint) % $2::bigint = $1::bigint
      and not exists (
          select from found where id = p.endpoint_id and found.field = p.field and found.message = p.message)
)
insert into endpoint_problems (endpoint_id, location, field, message, agent, since)
select id, $3, field, message, $7, least(since, now()) from found
on conflict (endpoint_id, location, field, message) do nothing
