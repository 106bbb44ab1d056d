-- By the supervisor, when a process of its is gone: of $2 location, $3/$4 share, the sessions that had begun by $5 and
-- have not ended. What they had not saved by then begins at $7, where they told their supervisor, or at what they told
-- the database, the later of both; else $6 seconds before. Returns the sessions ended.
with died as (
    update agents
    set last_seen = greatest(last_seen, $5), ended = greatest(started, $5), end_reason = 'died'
    where name = $1 and location = $2 and partition_index = $3 and partition_count = $4
      and started <= $5 and ended is null
    returning name, location, partition_index, partition_count, arm_index, arm_count,
        greatest(started, coalesce(greatest($7::timestamptz, unsaved_since), $5::timestamptz - make_interval(secs => $6))) as since
)
insert into gaps (agent, location, partition_index, partition_count, arm_index, arm_count, during, reason, detail)
select name, location, partition_index, partition_count, arm_index, arm_count, tstzrange(since, $5, '[]'), 'agent_died',
    'noticed by its supervisor'
from died
on conflict do nothing
