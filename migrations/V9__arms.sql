-- Arms: sessions of one share and location that divide the ticks of each endpoint between them, to compare settings.
--
-- Arm j of m owns tick k of endpoint id when (k + id) mod m = j; k is the tick's number on the endpoint's grid. The same
-- formula is in Rust (src/domain/arm.rs). Who names no arms owns every tick: arm 0 of 1, which is what releases before
-- this write.

-- The number of the first tick at or after `since`, for instants after 1970: the tick at number * interval + phase.
create function grid_tick(endpoint_id bigint, interval_ms integer, since timestamptz) returns bigint
language sql immutable parallel safe
return (epoch_us(since) + (interval_ms - grid_phase_ms(endpoint_id, interval_ms)) * 1000::bigint - 1)
    / (interval_ms * 1000::bigint);

-- Which of `arms` arms owns the tick of this number.
create function tick_arm(endpoint_id bigint, tick bigint, arms integer) returns integer
language sql immutable parallel safe
return ((tick % arms + ((endpoint_id % arms) + arms) % arms) % arms)::integer;

-- How many of the ticks numbered [since, until) arm `arm` of `arms` owns.
create function arm_ticks(endpoint_id bigint, since bigint, until bigint, arm integer, arms integer) returns bigint
language sql immutable parallel safe
return greatest(0,
    (until + ((endpoint_id % arms) + arms) % arms - arm + arms - 1) / arms
  - (since + ((endpoint_id % arms) + arms) % arms - arm + arms - 1) / arms);

alter table agents
    add column arms text[],
    add constraint agents_arm_is_one_of_its_arms check (
        arms is null
        or (cardinality(arms) between 2 and 8 and array_position(arms, null) is null
            and array_position(arms, arm) is not null)),
    add column arm_index integer not null generated always as (coalesce(array_position(arms, arm) - 1, 0)) stored,
    add column arm_count integer not null generated always as (coalesce(cardinality(arms), 1)) stored;
comment on column agents.arms is 'The arms that divide the ticks between them, in order of the alphabet; null: this session owns all ticks.';

alter table gaps
    add column arm_index integer not null default 0,
    add column arm_count integer not null default 1,
    add constraint gaps_arm check (arm_index >= 0 and arm_index < arm_count);
comment on column gaps.arm_count is 'The gap is of the ticks of arm arm_index of so many; 0 of 1: of every tick.';

alter table endpoint_gaps
    add column arm_index integer not null default 0,
    add column arm_count integer not null default 1,
    add constraint endpoint_gaps_arm check (arm_index >= 0 and arm_index < arm_count);
drop index endpoint_gaps_identity;
create unique index endpoint_gaps_identity
    on endpoint_gaps (endpoint_id, location, reason, during, arm_index, arm_count);

-- The instants for which a location answered for the ticks of arm tick_residue of tick_modulus of the endpoints with
-- id mod modulus = residue: while a session that owned them ran, and after one that died, where no other was running,
-- until the next one started. Moduli: the least common multiples of the counts in use, so that sessions with different
-- counts compare. Every class of a location is here, also one that nobody ever answered for.
create view answered_ticks as
with place as (
    select location, partition_lcm(partition_count)::integer as modulus, partition_lcm(arm_count)::integer as tick_modulus
    from agents group by location
),
class as (
    select p.location, p.modulus, r.residue, p.tick_modulus, t.tick_residue
    from place p
    cross join generate_series(0, p.modulus - 1) as r (residue)
    cross join generate_series(0, p.tick_modulus - 1) as t (tick_residue)
),
-- One that ended at its very start was there for a moment: its end is found, whether it died or took over and stopped.
run as (
    select a.location, r.residue, t.tick_residue, a.end_reason, a.started,
        greatest(a.ended, case when a.ended is not null then a.started + interval '1 microsecond' end) as ended,
        a.end_reason = 'stopped' and a.ended = a.started as at_once
    from agents a
    join place p on p.location = a.location
    cross join generate_series(a.partition_index, p.modulus - 1, a.partition_count) as r (residue)
    cross join generate_series(a.arm_index, p.tick_modulus - 1, a.arm_count) as t (tick_residue)
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
    cross join lateral unnest('{(,)}'::tstzmultirange - n.during) as nobody
    join run on run.location = n.location and run.residue = n.residue and run.tick_residue = n.tick_residue
        and run.ended = lower(nobody) and run.end_reason = 'died'
    group by n.location, n.residue, n.tick_residue
)
select c.location, c.modulus, c.residue, c.tick_modulus, c.tick_residue,
    coalesce(n.answered, '{}') + coalesce(d.during, '{}') as during
from class c
left join running n on n.location = c.location and n.residue = c.residue and n.tick_residue = c.tick_residue
left join dead d on d.location = c.location and d.residue = c.residue and d.tick_residue = c.tick_residue;

comment on view answered_for is 'Of shares, whatever their arms: for releases that know of none. See answered_ticks.';

-- As before, by arms: within an hour the arms that were answered for alike are one piece, all of them in an hour in
-- which nothing happened.
create or replace view coverage_hourly as
with hour as materialized (
    select series.bucket, least(series.bucket + interval '1 hour', horizon.until) as until
    from audit_horizon horizon, settings, (select min(lower(valid)) as since from endpoint_schedules) history,
        generate_series(
            date_trunc('hour', greatest(history.since, horizon.until - settings.raw_retention)),
            horizon.until, interval '1 hour') as series (bucket)
),
answered as materialized (
    select location, modulus, residue, tick_modulus, tick_residue, during from answered_ticks
)
select h.bucket, c.endpoint_id, c.location, c.due, c.stored, c.skipped, c.missing, c.off
from hour h
cross join lateral (
    select p.endpoint_id, p.location,
        sum(p.due)::bigint as due, sum(p.stored)::bigint as stored, sum(p.skipped)::bigint as skipped,
        coalesce(sum(p.due - p.stored) filter (where p.answered), 0)::bigint as missing,
        coalesce(sum(p.due - p.stored) filter (where not p.answered), 0)::bigint as off
    from (
        select piece.endpoint_id, piece.location, piece.answered, piece.since, piece.first_arm, piece.due,
            count(m."time") as stored, count(m."time") filter (where m.outcome = 'skipped') as skipped
        from (
            select s.endpoint_id, s.interval_ms, s.location, s.tick_modulus, s.whole, s.arms,
                s.arms[1] as first_arm, part.answered, lower(part.during) as since, upper(part.during) as until,
                case when s.whole
                    then grid_points(s.endpoint_id, s.interval_ms, lower(part.during), upper(part.during))
                    else (
                        select sum(arm_ticks(s.endpoint_id,
                            grid_tick(s.endpoint_id, s.interval_ms, lower(part.during)),
                            grid_tick(s.endpoint_id, s.interval_ms, upper(part.during)), arm, s.tick_modulus))::bigint
                        from unnest(s.arms) as arm)
                end as due
            from (
                select e.endpoint_id, e.interval_ms, a.location, a.tick_modulus, a.arms,
                    cardinality(a.arms) = a.tick_modulus as whole, a.during as answered_during,
                    e.valid * tstzrange(h.bucket, h.until) as during
                from endpoint_schedules e
                join (
                    select location, modulus, residue, tick_modulus, during,
                        array_agg(tick_residue order by tick_residue) as arms
                    from (
                        select location, modulus, residue, tick_modulus, tick_residue,
                            during * tstzmultirange(tstzrange(h.bucket, h.until)) as during
                        from answered
                    ) within_hour
                    group by location, modulus, residue, tick_modulus, during
                ) a on (e.locations is null or a.location = any (e.locations))
                    and a.residue = ((e.endpoint_id % a.modulus) + a.modulus) % a.modulus
                where e.valid && tstzrange(h.bucket, h.until)
            ) s
            cross join lateral (
                select true as answered, r as during
                from unnest(s.answered_during * tstzmultirange(s.during)) as r
                union all
                select false, r
                from unnest(tstzmultirange(s.during) - s.answered_during) as r
            ) part
            -- Computed once a piece, and not again for each row.
            offset 0
        ) piece
        left join (
            select "time", endpoint_id, location, outcome from metrics
            where "time" >= h.bucket and "time" < h.until
        ) m on m.endpoint_id = piece.endpoint_id and m.location = piece.location
            and m."time" >= piece.since and m."time" < piece.until
            and grid_holds(piece.endpoint_id, piece.interval_ms, m."time")
            and (piece.whole or tick_arm(piece.endpoint_id,
                grid_tick(piece.endpoint_id, piece.interval_ms, m."time"), piece.tick_modulus) = any (piece.arms))
        where piece.due > 0
        group by piece.endpoint_id, piece.location, piece.answered, piece.since, piece.first_arm, piece.due
    ) p
    group by p.endpoint_id, p.location
) c;

-- As before, of one arm: share is index and count of the partition, then of the arm (0 of 1 where it is not told).
create or replace function note_unheard_changes(
    agent text, at_location text, share integer[], began timestamptz, heard timestamptz, ended timestamptz
) returns bigint language sql security definer as $$
    with noted as (
        insert into endpoint_gaps (endpoint_id, location, during, reason, agent, db_role, arm_index, arm_count)
        select s.endpoint_id, at_location, s.valid * tstzrange(began, ended), 'catalog_behind', agent, session_user,
            coalesce(share[3], 0), coalesce(share[4], 1)
        from endpoint_schedules s
        -- A change is due 3 s after it; half a second for clocks that differ.
        where lower(s.valid) > heard + interval '2.5 seconds' and s.valid && tstzrange(began, ended)
          and (s.locations is null or at_location = any (s.locations))
          and ((s.endpoint_id % share[2]) + share[2]) % share[2] = share[1]
        on conflict do nothing
        returning 1
    )
    select count(*) from noted
$$;
do $$
begin
    -- Replacing a function forgets its settings.
    execute format('alter function note_unheard_changes set search_path = pg_catalog, %I, pg_temp', current_schema());
end $$;
