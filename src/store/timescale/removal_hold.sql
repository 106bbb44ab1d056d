-- Says what an agent goes on probing though it was deleted; returns whether somebody has said that it was meant.
-- $1 location, $2 index, $3 count, $4 agent, $5 endpoints, $6 of how many, $7 since, $8 until
insert into held_removals as h
    (location, partition_index, partition_count, agent, endpoints, endpoints_before, since, until)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (location, partition_index, partition_count, agent) do update
    set endpoints = excluded.endpoints, endpoints_before = excluded.endpoints_before,
        -- A confirmation is of what it was given for.
        confirmed = h.confirmed and h.since = excluded.since, since = excluded.since, until = excluded.until
returning confirmed
