-- Told again, it is the same gap.
insert into gaps (
    agent, location, partition_index, partition_count, during, reason, samples, detail, arm_index, arm_count)
values ($1, $2, $3, $4, tstzrange($5, $6, '[]'), $7, $8, $9, $10, $11)
on conflict do nothing
