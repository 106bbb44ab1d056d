-- What two arms measured at the same endpoints in the same time, in rows of several kinds (first column):
--   0: per side and outcome: label outcome; x rows, y suspect ones, z usable ones
--   1: a mass: group, block, side, bin; x weighted samples
--   2: a part: group, block, side; x weighted probes, y of them down, z their CPU time in µs
--   3: one row: x endpoints (at a location), y seconds of a block, z the usual middle of an endpoint, label first and last
--      instant, µs since the epoch
--   4: per side: x endpoints at which its median is the lower one
-- $1 and $2 the arms, $3 since, $4 until, $5 location (null: every one), $6 metric, $7 groups and $8 blocks at most,
-- $9 seconds of a block at least.
--
-- A row is its agent's, and an agent of a split arm is of that arm alone (its name says so). Rows count while both arms
-- had a session that was to probe the endpoint, under one and the same list of arms. An agent that fell silent has
-- stopped 15 s after it was last heard of, three heartbeats.
with session as materialized (
    select name, location, arm, arms, partition_index, partition_count,
        tstzrange(started, greatest(started, coalesce(ended, last_seen + interval '15 seconds')))
            * tstzrange($3, $4) as during
    from agents
    where arm in ($1, $2) and arms @> array[$1, $2] and ($5::text is null or location = $5)
      and started < $4 and (ended is null or ended > $3)
),
place as (
    select location, partition_lcm(partition_count)::integer as modulus from session group by location
),
ran as (
    select s.location, p.modulus, r.residue, s.arms, s.arm, range_agg(s.during) as during
    from session s
    join place p on p.location = s.location
    cross join generate_series(s.partition_index, p.modulus - 1, s.partition_count) as r (residue)
    group by s.location, p.modulus, r.residue, s.arms, s.arm
),
ran_both as materialized (
    select a.location, a.modulus, a.residue, range_agg(span) as during
    from ran a
    join ran b on b.location = a.location and b.residue = a.residue and b.arms = a.arms
    cross join lateral unnest(a.during * b.during) as span
    where a.arm = $1 and b.arm = $2
    group by a.location, a.modulus, a.residue
),
extent as materialized (
    select min(lower(span)) as since, max(upper(span)) as until,
        greatest($9::double precision,
            (extract(epoch from max(upper(span)) - min(lower(span))) / $8::integer)::double precision) as block_s
    from ran_both cross join lateral unnest(during) as span
),
member as materialized (
    select distinct on (location, name) location, name, case arm when $1 then 0 else 1 end as side
    from session order by location, name
),
base as materialized (
    select m.endpoint_id, m.location, member.side, m.outcome, m.suspect, m.cpu_us,
        floor(extract(epoch from m."time" - extent.since) / extent.block_s)::integer as block,
        case when m.outcome in ('up', 'degraded') and not m.suspect then
            case $6
                when 'duration' then m.duration_us when 'lag' then m.lag_us when 'resolve' then m.resolve_us
                when 'connect' then m.connect_us when 'tls' then m.tls_us when 'processing' then m.processing_us
                when 'transfer' then m.transfer_us when 'cpu' then m.cpu_us
            end
        end as value
    from metrics m
    join member on member.location = m.location and member.name = m.agent
    join ran_both r on r.location = m.location
        and r.residue = ((m.endpoint_id % r.modulus) + r.modulus) % r.modulus and r.during @> m."time"
    cross join extent
    where m."time" >= $3 and m."time" < $4
),
-- Every endpoint is to weigh the same in both arms: as much as in the arm that has less of it. Its middle lies half-way
-- between the arms' medians: the median of both together would be now the one's, now the other's where they lie apart.
unit as materialized (
    select endpoint_id, location, a_probed, b_probed, a_usable, b_usable, a_middle, b_middle,
        (a_middle + b_middle) / 2.0::double precision as middle,
        ((row_number() over (order by hashint8(endpoint_id), location) - 1) % $7::integer)::integer as "group"
    from (
        select endpoint_id, location,
            count(*) filter (where side = 0 and outcome <> 'skipped') as a_probed,
            count(*) filter (where side = 1 and outcome <> 'skipped') as b_probed,
            count(value) filter (where side = 0) as a_usable,
            count(value) filter (where side = 1) as b_usable,
            percentile_disc(0.5) within group (order by value) filter (where side = 0) as a_middle,
            percentile_disc(0.5) within group (order by value) filter (where side = 1) as b_middle
        from base group by endpoint_id, location
    ) counted
    where a_probed > 0 and b_probed > 0
),
distance as (
    select u."group", b.block, b.side, b.value - u.middle as off,
        least(u.a_usable, u.b_usable)::double precision
            / case b.side when 0 then u.a_usable else u.b_usable end as weight
    from base b
    join unit u on u.endpoint_id = b.endpoint_id and u.location = b.location
    where b.value is not null and u.a_usable > 0 and u.b_usable > 0
),
probe as (
    select u."group", b.block, b.side, b.outcome, b.cpu_us,
        least(u.a_probed, u.b_probed)::double precision
            / case b.side when 0 then u.a_probed else u.b_probed end as weight
    from base b
    join unit u on u.endpoint_id = b.endpoint_id and u.location = b.location
    where b.outcome <> 'skipped'
)
select 0 as kind, 0 as "group", 0 as block, side, 0 as bin, count(*)::double precision as x,
    count(*) filter (where suspect)::double precision as y, count(value)::double precision as z, outcome::text as label
from base group by side, outcome
union all
-- Bins as in src/domain/compare.rs: of 1 µs within 256 µs, then of 1/256 of the distance.
select 1, "group", block, side,
    case when abs(off) < 256 then off else sign(off) * (256 + floor(ln(abs(off) / 256) * 256)) end::integer,
    sum(weight), null, null, null
from distance group by 2, 3, 4, 5
union all
select 2, "group", block, side, 0, sum(weight), coalesce(sum(weight) filter (where outcome = 'down'), 0),
    sum(weight * cpu_us), null
from probe group by "group", block, side
union all
select 3, 0, 0, 0, 0, (select count(*) from unit), block_s,
    (select percentile_disc(0.5) within group (order by middle) from unit where a_usable > 0 and b_usable > 0),
    concat_ws(' ', epoch_us(since), epoch_us(until))
from extent where since is not null
union all
select 4, 0, 0, side, 0, count(*), null, null, null
from unit cross join (values (0), (1)) as s (side)
where case side when 0 then a_middle < b_middle else b_middle < a_middle end
group by side
