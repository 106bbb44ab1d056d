-- Every due tick of [$1, $2): stored, off, or missing with a reason. First the totals in one row (endpoint_id null), then,
-- when $3, one row per endpoint and location.
--
-- Due ticks are counted by arithmetic per piece: a span in which one endpoint was due at one location by one schedule,
-- and for all of which somebody answered for it, or nobody. Where arms divide the ticks, those that were answered for
-- alike are one piece: all of them, as long as nothing happened. Only pieces with fewer rows than ticks are expanded.
with segment as materialized (
    select endpoint_id, interval_ms, locations, valid * tstzrange($1, $2) as during
    from endpoint_schedules
    where valid && tstzrange($1, $2)
),
-- A schedule without locations is due at every location known; one with locations also where no agent ever was.
place as materialized (
    select location, partition_lcm(partition_count) as modulus, partition_lcm(arm_count)::integer as tick_modulus
    from agents group by location
    union all
    select distinct named, 1::bigint, 1 from segment cross join unnest(locations) as named
    where not exists (select from agents where location = named)
),
known as materialized (
    select distinct location from agents
),
cover as materialized (
    select location, residue, array_agg(tick_residue order by tick_residue) as arms,
        count(*) = tick_modulus as whole, during
    from (
        select location, residue, tick_modulus, tick_residue,
            during * tstzmultirange(tstzrange($1, $2)) as during
        from answered_ticks
    ) within_window
    group by location, residue, tick_modulus, during
),
piece as materialized (
    select p.endpoint_id, p.interval_ms, p.location, part.answered,
        p.tick_modulus, coalesce(c.whole, true) as whole, coalesce(c.arms, '{0}') as arms,
        lower(part.during) as since, upper(part.during) as until,
        case when coalesce(c.whole, true)
            then grid_points(p.endpoint_id, p.interval_ms, lower(part.during), upper(part.during))
            else (
                select sum(arm_ticks(p.endpoint_id,
                    grid_tick(p.endpoint_id, p.interval_ms, lower(part.during)),
                    grid_tick(p.endpoint_id, p.interval_ms, upper(part.during)), arm, p.tick_modulus))::bigint
                from unnest(c.arms) as arm)
        end as due
    from (
        select s.endpoint_id, s.interval_ms, s.during, place.location, place.tick_modulus,
            ((s.endpoint_id % place.modulus) + place.modulus) % place.modulus as residue
        from segment s
        join place on case when s.locations is null
            then place.location in (select location from known) else place.location = any (s.locations) end
    ) p
    left join cover c on c.location = p.location and c.residue = p.residue
    cross join lateral (
        select true as answered, r as during from spans(c.during * tstzmultirange(p.during)) as r
        union all
        select false, r from spans(tstzmultirange(p.during) - coalesce(c.during, tstzmultirange())) as r
    ) part
),
-- The rows on due ticks, by piece. One pass over the window.
counted as materialized (
    select p.endpoint_id, p.location, p.since, p.arms[1] as first_arm, m.outcome, m.reason, count(*) as ticks
    from metrics m
    join piece p on p.endpoint_id = m.endpoint_id and p.location = m.location
        and m."time" >= p.since and m."time" < p.until
    where m."time" >= $1 and m."time" < $2 and grid_holds(p.endpoint_id, p.interval_ms, m."time")
      and (p.whole or tick_arm(
          p.endpoint_id, grid_tick(p.endpoint_id, p.interval_ms, m."time"), p.tick_modulus) = any (p.arms))
    group by p.endpoint_id, p.location, p.since, p.arms[1], m.outcome, m.reason
),
judged as materialized (
    select p.endpoint_id, p.interval_ms, p.location, p.since, p.until, p.answered, p.due,
        p.tick_modulus, p.whole, p.arms, coalesce(c.stored, 0) as stored
    from piece p
    left join (
        select endpoint_id, location, since, first_arm, sum(ticks)::bigint as stored
        from counted group by endpoint_id, location, since, first_arm
    ) c on c.endpoint_id = p.endpoint_id and c.location = p.location and c.since = p.since
        and c.first_arm = p.arms[1]
    where p.due > 0
),
missing as materialized (
    select j.endpoint_id, j.location, tick as "time", grid_tick(j.endpoint_id, j.interval_ms, tick) as number
    from judged j
    cross join lateral generate_series(
        grid_next(j.endpoint_id, j.interval_ms, j.since), j.until - interval '1 microsecond',
        j.interval_ms * interval '1 millisecond') as tick
    where j.answered and j.due > j.stored
      and (j.whole or tick_arm(
          j.endpoint_id, grid_tick(j.endpoint_id, j.interval_ms, tick), j.tick_modulus) = any (j.arms))
      and not exists (
          select from metrics m
          where m.endpoint_id = j.endpoint_id and m.location = j.location and m."time" = tick
            and m."time" >= $1 and m."time" < $2)
),
gap as materialized (
    select location, partition_index, partition_count, arm_index, arm_count, during, reason
    from gaps where during && tstzrange($1, $2)
),
own_gap as materialized (
    select endpoint_id, location, arm_index, arm_count, during, reason
    from endpoint_gaps where during && tstzrange($1, $2)
),
run as materialized (
    select location, partition_index, partition_count, arm_index, arm_count, tstzrange(started, ended) as during
    from agents where started < $2 and (ended is null or ended > $1)
),
own as materialized (
    select distinct on (m.endpoint_id, m.location, m."time") m.endpoint_id, m.location, m."time", g.reason
    from missing m
    join own_gap g on g.endpoint_id = m.endpoint_id and g.location = m.location and g.during @> m."time"
        and tick_arm(m.endpoint_id, m.number, g.arm_count) = g.arm_index
    order by m.endpoint_id, m.location, m."time",
        g.reason = 'endpoint_problem', upper(g.during) - lower(g.during), g.reason
),
-- That its sample was refused; else the gap of its share and arm that names the tick, the shortest when there are several; else
-- that its change was heard of late or never, which is said a little too widely where clocks differ; else the death of
-- the last one that answered for it, which nobody has recorded yet; else that its row was not valid; else nothing is
-- known.
explained as materialized (
    select m.endpoint_id, m.location, coalesce(
        case own.reason when 'refused' then own.reason end, named.reason,
        case own.reason when 'catalog_behind' then own.reason end,
        case when not exists (
            select from run
            where run.location = m.location and run.during @> m."time"
              and ((m.endpoint_id % run.partition_count) + run.partition_count) % run.partition_count
                  = run.partition_index
              and tick_arm(m.endpoint_id, m.number, run.arm_count) = run.arm_index
        ) then 'agent_died' end,
        own.reason, 'unexplained') as reason, count(*) as ticks
    from missing m
    left join own on own.endpoint_id = m.endpoint_id and own.location = m.location and own."time" = m."time"
    left join lateral (
        select gap.reason from gap
        where gap.location = m.location and gap.during @> m."time"
          and ((m.endpoint_id % gap.partition_count) + gap.partition_count) % gap.partition_count
              = gap.partition_index
          and tick_arm(m.endpoint_id, m.number, gap.arm_count) = gap.arm_index
        order by upper(gap.during) - lower(gap.during), gap.reason limit 1
    ) named on true
    group by 1, 2, 3
),
per_piece as materialized (
    select endpoint_id, location, sum(due)::bigint as due, sum(stored)::bigint as stored,
        coalesce(sum(due - stored) filter (where not answered), 0)::bigint as off,
        coalesce(sum(due - stored) filter (where answered), 0)::bigint as missing
    from judged group by endpoint_id, location
),
per_outcome as (
    select endpoint_id, location,
        coalesce(sum(ticks) filter (where outcome = 'up'), 0)::bigint as up,
        coalesce(sum(ticks) filter (where outcome = 'degraded'), 0)::bigint as degraded,
        coalesce(sum(ticks) filter (where outcome = 'down'), 0)::bigint as down
    from counted group by endpoint_id, location
),
duplicated as (
    select coalesce(sum(rows - 1), 0)::bigint as duplicates from (
        select count(*) as rows from metrics where "time" >= $1 and "time" < $2
        group by endpoint_id, location, "time" having count(*) > 1
    ) repeated
)
select null::bigint as endpoint_id, null::text as location,
    coalesce(sum(p.due), 0)::bigint, coalesce(sum(p.stored), 0)::bigint,
    coalesce((select sum(up) from per_outcome), 0)::bigint,
    coalesce((select sum(degraded) from per_outcome), 0)::bigint,
    coalesce((select sum(down) from per_outcome), 0)::bigint,
    coalesce((select jsonb_object_agg(reason, ticks order by reason) from (
        select reason::text as reason, sum(ticks)::bigint as ticks from counted where outcome = 'skipped' group by 1
    ) s), '{}'),
    coalesce(sum(p.off), 0)::bigint, coalesce(sum(p.missing), 0)::bigint,
    coalesce((select jsonb_object_agg(reason, ticks order by reason) from (
        select reason, sum(ticks)::bigint as ticks from explained group by 1
    ) e), '{}'),
    (select duplicates from duplicated)
from per_piece p
union all
select p.endpoint_id, p.location, p.due, p.stored, coalesce(o.up, 0), coalesce(o.degraded, 0), coalesce(o.down, 0),
    coalesce(s.skipped, '{}'), p.off, p.missing, coalesce(e.missing_by, '{}'), 0
from per_piece p
left join per_outcome o on o.endpoint_id = p.endpoint_id and o.location = p.location
left join (
    select endpoint_id, location, jsonb_object_agg(reason, ticks) as skipped from (
        select endpoint_id, location, reason::text as reason, sum(ticks)::bigint as ticks
        from counted where outcome = 'skipped' group by 1, 2, 3
    ) by_reason group by endpoint_id, location
) s on s.endpoint_id = p.endpoint_id and s.location = p.location
left join (
    select endpoint_id, location, jsonb_object_agg(reason, ticks) as missing_by
    from explained group by endpoint_id, location
) e on e.endpoint_id = p.endpoint_id and e.location = p.location
where $3
