-- A session begins. Its predecessors are those of the same share, arm and location (never another arm's, which runs
-- beside it), and those of any other share or arm of the location that have not been heard of for 30 s ($7: the number
-- of processes or of arms may have changed). A predecessor that never
-- ended died when last seen; what it had not written by then, and what nobody probed until now, is a gap. Of one that
-- its supervisor has already ended as died, the gap from its death until now is still missing.
-- Returns the session, and those at the location that live and divide the ticks otherwise.
-- $1 name, $2 location, $3 index, $4 count, $5 version, $6 started, $7 stale before, $8 horizon (unwritten at death,
-- where it did not say how far its samples were saved), $9 arm, $11 arms (null: none). $10: the row is written long after
-- the session began, since the database was away: then silence of others with as many shares and arms says nothing.
with own as (
    select coalesce(array_position($11::text[], $9) - 1, 0) as arm_index, coalesce(cardinality($11::text[]), 1) as arm_count
),
predecessor as (
    select session_id, name, partition_index, partition_count, a.arm_index, a.arm_count, started, last_seen,
        unsaved_since, ended, end_reason,
        (partition_index, partition_count, a.arm_index, a.arm_count)
            = ($3::integer, $4::integer, own.arm_index, own.arm_count) as same_share,
        (partition_count, a.arm_count) = ($4::integer, own.arm_count) as as_many,
        session_id = first_value(session_id) over (
            partition by partition_index, partition_count, a.arm_index, a.arm_count
            order by started desc, session_id desc) as latest
    from agents a, own
    where location = $2 and started < $6
),
unended as (
    update agents a
    set ended = greatest(p.last_seen, p.started), end_reason = 'died'
    from predecessor p
    where a.session_id = p.session_id and p.ended is null
      and (p.same_share or p.last_seen < $7 and not (p.as_many and $10))
    returning p.name, p.partition_index, p.partition_count, p.arm_index, p.arm_count,
        greatest(coalesce(p.unsaved_since, p.last_seen - make_interval(secs => $8)), p.started) as since
),
died as (
    select * from unended
    union all
    select name, partition_index, partition_count, arm_index, arm_count, ended from predecessor
    where end_reason = 'died' and latest and same_share
),
gap as (
    insert into gaps (
        agent, location, partition_index, partition_count, arm_index, arm_count, during, reason, detail)
    select name, $2, partition_index, partition_count, arm_index, arm_count, tstzrange(since, $6), 'agent_died',
        'noticed by its successor'
    from died
    where since < $6
      -- Not again when this session was recorded before and only the answer was lost.
      and not exists (select from agents where (location, partition_index, partition_count, name, started)
          = ($2, $3::integer, $4::integer, $1, $6))
    on conflict do nothing
)
insert into agents (name, location, arm, arms, partition_index, partition_count, version, started, last_seen)
values ($1, $2, $9, $11, $3, $4, $5, $6, $6)
on conflict (location, partition_index, partition_count, name, started) do update
    set last_seen = greatest(agents.last_seen, excluded.last_seen)
returning session_id, (
    select string_agg(distinct concat_ws(': ', o.name, coalesce(array_to_string(o.arms, ','), 'no arms')), '; ')
    from agents o
    where o.location = $2 and o.started < $6 and o.ended is null and o.last_seen >= $7
      and o.arms is distinct from $11::text[]
)
