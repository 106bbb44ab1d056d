-- $1 ids, $2 first and $3 last instants, $4 reasons; $5 agent, $6 location, $7 and $8 its arm and of
-- how many. Told twice, it is one row.
insert into endpoint_gaps (endpoint_id, location, during, reason, agent, arm_index, arm_count)
select id, $6, tstzrange(since, until, '[]'), reason, $5, $7, $8
from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::text[]) as gap (id, since, until, reason)
on conflict do nothing
