-- What two arms measured at the same endpoints in the same time: a row for each endpoint (at a location), side (0 the
-- first arm, 1 the second) and block of time; those of one endpoint at one location one after another. In the first
-- columns of each row, and in a row without an endpoint where nothing was measured: first and last instant in which both
-- arms ran, seconds of a block. No row where they never did.
-- $1 and $2 the arms, $3 since, $4 until, $5 location (null: every one), $6 metric, $7 blocks at most (below 64), $8
-- seconds of a block at least.
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
    select since, until, block_s,
        array(select since + block * block_s * interval '1 second'
            from generate_series(0, ceil(date_part('epoch', until - since) / block_s)::integer - 1) as block
            order by block) as blocks
    from (
        select min(lower(span)) as since, max(upper(span)) as until,
            greatest($8::double precision,
                date_part('epoch', max(upper(span)) - min(lower(span))) / $7::integer) as block_s
        from ran_both cross join lateral unnest(during) as span
    ) whole
    where since is not null
),
-- Locations by a number: to sort rows by a text is dear.
member as materialized (
    select distinct on (location, name) location, name, case arm when $1 then 0 else 1 end as side,
        dense_rank() over (order by location)::integer as place
    from session order by location, name
),
-- As few columns to sort by as can be, and cheap ones.
base as (
    select m.endpoint_id, (member.place * 64 + width_bucket(m."time", extent.blocks)) * 2 + member.side as cell,
        m.outcome, m.suspect, m.cpu_us,
        case when m.outcome in ('up', 'degraded') and not m.suspect then
            case $6
                when 'duration' then m.duration_us when 'lag' then m.lag_us when 'resolve' then m.resolve_us
                when 'connect' then m.connect_us when 'tls' then m.tls_us when 'processing' then m.processing_us
                when 'transfer' then m.transfer_us when 'cpu' then m.cpu_us
            end
        end as value
    from metrics m
    join member on member.location = m.location and member.name = m.agent
    -- The share first: it is the cheaper question.
    join ran_both r on r.location = m.location and case
        when r.residue = ((m.endpoint_id % r.modulus) + r.modulus) % r.modulus then r.during @> m."time" end
    cross join extent
    where m."time" >= $3 and m."time" < $4
),
cell as (
    select endpoint_id, cell,
        count(*) filter (where outcome = 'up') as up,
        count(*) filter (where outcome = 'degraded') as degraded,
        count(*) filter (where outcome = 'down') as down,
        count(*) filter (where outcome = 'skipped') as skipped,
        count(*) filter (where suspect) as suspect,
        coalesce(sum(cpu_us) filter (where outcome <> 'skipped'), 0)::bigint as cpu_us,
        coalesce(array_agg(value) filter (where value is not null), '{}') as "values"
    from base
    group by endpoint_id, cell
)
select epoch_us(e.since), epoch_us(e.until), e.block_s, c.endpoint_id,
    c.cell / 128 as place, c.cell % 2 as side, c.cell / 2 % 64 - 1 as block,
    c.up, c.degraded, c.down, c.skipped, c.suspect, c.cpu_us, c."values"
from extent e
left join cell c on true
order by c.endpoint_id, c.cell
