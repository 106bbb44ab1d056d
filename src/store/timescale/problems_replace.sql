-- After a full load: of a share ($1 of $2) at $3, exactly the problems given ($4 ids, $5 fields, $6 messages, $8 since)
-- remain, and those that another arm has found and lives, which are its to clear: it may have other settings.
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
      and not exists (
          select from agents a
          where a.name = p.agent and a.name <> $7 and a.location = p.location and a.arm_count > 1
            and a.ended is null and a.last_seen > now() - interval '1 minute')
)
insert into endpoint_problems (endpoint_id, location, field, message, agent, since)
select id, $3, field, message, $7, least(since, now()) from found
on conflict (endpoint_id, location, field, message) do nothing
