-- How many rows to expect of a function that returns several. The planner takes 1000 for generate_series and 100 for
-- unnest of a multirange; both stand in products here, and made the audit prepare for 10^11 pieces where there are
-- some 10^4: its hash tables went to disk for seconds before the first row came.

-- Not inlined, since they are strict: then their own figure counts.
create function spans(times tstzmultirange) returns setof tstzrange
language sql immutable strict parallel safe rows 2
as 'select unnest(times)';

-- The residues of a share or an arm: `first`, then each `step`-th up to `last`.
create function residues(first integer, last integer, step integer) returns setof integer
language sql immutable strict parallel safe rows 4
as 'select generate_series(first, last, step)';

-- As before, with these.
create or replace view answered_ticks as
with place as (
    select location, partition_lcm(partition_count)::integer as modulus, partition_lcm(arm_count)::integer as tick_modulus
    from agents group by location
),
class as (
    select p.location, p.modulus, r.residue, p.tick_modulus, t.tick_residue
    from place p
    cross join residues(0, p.modulus - 1, 1) as r (residue)
    cross join residues(0, p.tick_modulus - 1, 1) as t (tick_residue)
),
-- One that ended at its very start was there for a moment: its end is found, whether it died or took over and stopped.
run as (
    select a.location, r.residue, t.tick_residue, a.end_reason, a.started,
        greatest(a.ended, case when a.ended is not null then a.started + interval '1 microsecond' end) as ended,
        a.end_reason = 'stopped' and a.ended = a.started as at_once
    from agents a
    join place p on p.location = a.location
    cross join residues(a.partition_index, p.modulus - 1, a.partition_count) as r (residue)
    cross join residues(a.arm_index, p.tick_modulus - 1, a.arm_count) as t (tick_residue)
),
running as (
    select location, residue, tick_residue, range_agg(tstzrange(started, ended)) as during,
        range_agg(tstzrange(started, ended)) filter (where at_once is not true) as answered
    from run group by location, residue, tick_residue
),
-- Spans without anybody that begin with a death.
dead as (
    select n.location, n.residue, n.tick_residue, range_agg(nobody) as during
    from running n
    cross join lateral spans('{(,)}'::tstzmultirange - n.during) as nobody
    join run on run.location = n.location and run.residue = n.residue and run.tick_residue = n.tick_residue
        and run.ended = lower(nobody) and run.end_reason = 'died'
    group by n.location, n.residue, n.tick_residue
)
select c.location, c.modulus, c.residue, c.tick_modulus, c.tick_residue,
    coalesce(n.answered, '{}') + coalesce(d.during, '{}') as during
from class c
left join running n on n.location = c.location and n.residue = c.residue and n.tick_residue = c.tick_residue
left join dead d on d.location = c.location and d.residue = c.residue and d.tick_residue = c.tick_residue;
