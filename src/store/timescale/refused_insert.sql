-- Names no conflict target, which would need the right to read.
insert into refused_samples ("time", endpoint_id, location, agent, sqlstate, reason, sample)
values ($1, $2, $3, $4, $5, $6, $7::text::json)
on conflict do nothing
