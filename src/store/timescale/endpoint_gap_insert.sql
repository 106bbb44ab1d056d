-- $1 ids, $2 first and $3 last instants, $4 reasons; $5 agent, $6 location. Told twice, it is one row.
insert into endpoint_gaps (endpoint_id, location, during, reason, agent)
select id, $6, tstzrange(since, until, '[]'), reason, $5
from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::text[]) as gap (id, since, until, reason)
on conflict do nothing
