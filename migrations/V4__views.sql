-- What product owners read. Each view over `metrics` alone is one plain grouped SELECT on time_bucket, which can become
-- a continuous aggregate with the same text and columns.

-- ── latency ──────────────────────────────────────────────────────────────────
-- Of probes that passed (up and degraded). Left out: suspects, whose duration the agent may itself have lengthened;
-- down, whose duration is that of the failure (often the timeout); skipped, which have none. Percentiles are discrete:
-- each is a duration that was measured. Phases are means over the samples that had them.
create view latency_5m as
select time_bucket(interval '5 minutes', "time") as bucket, endpoint_id, location,
    count(*) as samples,
    percentile_disc(0.5) within group (order by duration_us) as p50_us,
    percentile_disc(0.95) within group (order by duration_us) as p95_us,
    percentile_disc(0.99) within group (order by duration_us) as p99_us,
    min(duration_us) as min_us, max(duration_us) as max_us, avg(duration_us)::double precision as avg_us,
    avg(resolve_us)::double precision as avg_resolve_us, avg(connect_us)::double precision as avg_connect_us,
    avg(tls_us)::double precision as avg_tls_us, avg(processing_us)::double precision as avg_processing_us,
    avg(transfer_us)::double precision as avg_transfer_us
from metrics
where outcome in ('up', 'degraded') and not suspect and duration_us is not null
group by bucket, endpoint_id, location;

create view latency_hourly as
select time_bucket(interval '1 hour', "time") as bucket, endpoint_id, location,
    count(*) as samples,
    percentile_disc(0.5) within group (order by duration_us) as p50_us,
    percentile_disc(0.95) within group (order by duration_us) as p95_us,
    percentile_disc(0.99) within group (order by duration_us) as p99_us,
    min(duration_us) as min_us, max(duration_us) as max_us, avg(duration_us)::double precision as avg_us,
    avg(resolve_us)::double precision as avg_resolve_us, avg(connect_us)::double precision as avg_connect_us,
    avg(tls_us)::double precision as avg_tls_us, avg(processing_us)::double precision as avg_processing_us,
    avg(transfer_us)::double precision as avg_transfer_us
from metrics
where outcome in ('up', 'degraded') and not suspect and duration_us is not null
group by bucket, endpoint_id, location;

-- Days are UTC's.
create view latency_daily as
select time_bucket(interval '1 day', "time") as bucket, endpoint_id, location,
    count(*) as samples,
    percentile_disc(0.5) within group (order by duration_us) as p50_us,
    percentile_disc(0.95) within group (order by duration_us) as p95_us,
    percentile_disc(0.99) within group (order by duration_us) as p99_us,
    min(duration_us) as min_us, max(duration_us) as max_us, avg(duration_us)::double precision as avg_us,
    avg(resolve_us)::double precision as avg_resolve_us, avg(connect_us)::double precision as avg_connect_us,
    avg(tls_us)::double precision as avg_tls_us, avg(processing_us)::double precision as avg_processing_us,
    avg(transfer_us)::double precision as avg_transfer_us
from metrics
where outcome in ('up', 'degraded') and not suspect and duration_us is not null
group by bucket, endpoint_id, location;

-- ── availability ─────────────────────────────────────────────────────────────
-- availability = (up + degraded) / probed; probed, its denominator, = up + degraded + down. Skipped probes are the
-- agent's doing and count neither way; null where nothing was probed.
create view availability_hourly as
select time_bucket(interval '1 hour', "time") as bucket, endpoint_id, location,
    count(*) filter (where outcome = 'up') as up,
    count(*) filter (where outcome = 'degraded') as degraded,
    count(*) filter (where outcome = 'down') as down,
    count(*) filter (where outcome = 'skipped') as skipped,
    count(*) filter (where outcome <> 'skipped') as probed,
    count(*) filter (where outcome in ('up', 'degraded'))::double precision
        / nullif(count(*) filter (where outcome <> 'skipped'), 0) as availability
from metrics
group by bucket, endpoint_id, location;

create view availability_daily as
select time_bucket(interval '1 day', "time") as bucket, endpoint_id, location,
    count(*) filter (where outcome = 'up') as up,
    count(*) filter (where outcome = 'degraded') as degraded,
    count(*) filter (where outcome = 'down') as down,
    count(*) filter (where outcome = 'skipped') as skipped,
    count(*) filter (where outcome <> 'skipped') as probed,
    count(*) filter (where outcome in ('up', 'degraded'))::double precision
        / nullif(count(*) filter (where outcome <> 'skipped'), 0) as availability
from metrics
group by bucket, endpoint_id, location;

-- ── coverage ─────────────────────────────────────────────────────────────────
create aggregate partition_lcm(bigint) (sfunc = lcm, stype = bigint, initcond = '1', parallel = safe);

-- The instants for which a location answered for the endpoints with id mod modulus = residue: from a session's start
-- until its orderly stop; a session that died is answered for until the next one starts. Modulus: the least common
-- multiple of the partition counts in use, so that sessions with different counts compare.
create view answered_for as
select location, modulus, residue,
    range_agg(tstzrange(started, case end_reason when 'stopped' then ended when 'died' then next_started end)) as during
from (
    select a.location, m.modulus, r.residue, a.started, a.ended, a.end_reason,
        lead(a.started) over (partition by a.location, r.residue order by a.started, a.session_id) as next_started
    from agents a
    join (select location, partition_lcm(partition_count) as modulus from agents group by location) m using (location)
    cross join generate_series(a.partition_index, m.modulus - 1, a.partition_count) as r (residue)
) as owner
group by location, modulus, residue;

-- Up to where an audit can be sure: the last tick whose timeout has passed, and 3 s for the flush; now, when no agent
-- is alive (heard of within a minute).
create view audit_horizon as
select case when exists (
        select from agents where ended is null and last_seen > now() - interval '1 minute'
    ) then now() - interval '3 seconds' - interval '1 millisecond' * coalesce((
        select max(timeout_ms) from endpoint_schedules
        where upper_inf(valid) or upper(valid) > now() - interval '310 seconds'
    ), 0) else now() end as until;

-- Per hour: due grid points; stored rows on them (skipped ones included); off: nobody had to probe (no agent there yet,
-- or stopped in an orderly way); missing = due - stored - off. Rows off the grid's history count nowhere. Constrain
-- `bucket`: every hour is computed from raw rows. `watcher audit` says why ticks are missing.
create view coverage_hourly as
with hour as materialized (
    select series.bucket, least(series.bucket + interval '1 hour', horizon.until) as until
    from audit_horizon horizon, settings, (select min(lower(valid)) as since from endpoint_schedules) history,
        generate_series(
            date_trunc('hour', greatest(history.since, horizon.until - settings.raw_retention)),
            horizon.until, interval '1 hour') as series (bucket)
)
select h.bucket, c.endpoint_id, c.location, c.due, c.stored, c.skipped, c.missing, c.off
from hour h
cross join lateral (
    select p.endpoint_id, p.location,
        sum(p.due)::bigint as due, sum(p.stored)::bigint as stored, sum(p.skipped)::bigint as skipped,
        coalesce(sum(p.due - p.stored) filter (where p.answered), 0)::bigint as missing,
        coalesce(sum(p.due - p.stored) filter (where not p.answered), 0)::bigint as off
    from (
        select piece.endpoint_id, piece.location, piece.answered, piece.since, piece.due,
            count(m."time") as stored, count(m."time") filter (where m.outcome = 'skipped') as skipped
        from (
            select s.endpoint_id, s.interval_ms, s.location, part.answered,
                lower(part.during) as since, upper(part.during) as until,
                grid_points(s.endpoint_id, s.interval_ms, lower(part.during), upper(part.during)) as due
            from (
                select e.endpoint_id, e.interval_ms, l.location, l.modulus,
                    e.valid * tstzrange(h.bucket, h.until) as during
                from endpoint_schedules e
                join (select location, partition_lcm(partition_count) as modulus from agents group by location) l
                    on e.locations is null or l.location = any (e.locations)
                where e.valid && tstzrange(h.bucket, h.until)
            ) s
            left join answered_for a
                on a.location = s.location and a.residue = ((s.endpoint_id % s.modulus) + s.modulus) % s.modulus
            cross join lateral (
                select true as answered, r as during
                from unnest(a.during * tstzmultirange(s.during)) as r
                union all
                select false, r
                from unnest(tstzmultirange(s.during) - coalesce(a.during, tstzmultirange())) as r
            ) part
        ) piece
        left join (
            select "time", endpoint_id, location, outcome from metrics
            where "time" >= h.bucket and "time" < h.until
        ) m on m.endpoint_id = piece.endpoint_id and m.location = piece.location
            and m."time" >= piece.since and m."time" < piece.until
            and grid_holds(piece.endpoint_id, piece.interval_ms, m."time")
        where piece.due > 0
        group by piece.endpoint_id, piece.location, piece.answered, piece.since, piece.due
    ) p
    group by p.endpoint_id, p.location
) c;

-- ── cost ─────────────────────────────────────────────────────────────────────
-- Measured per sample, priced by the card in force at its time. Stored bytes: the row as it lies in the table, with its
-- line pointer (4) and its entry in the unique index (44); stored for as long as raw_retention says (for ever: 10
-- years). A month has 730 hours.
create function stored_gb_months(bytes bigint, retention interval) returns numeric
language sql immutable parallel safe
return bytes / 1e9 * extract(epoch from coalesce(retention, interval '10 years')) / (730 * 3600);

create view cost_hourly as
select u.bucket, u.endpoint_id, u.location, u.probes, u.cpu_us, u.bytes_sent, u.bytes_received, u.bytes_stored,
    u.cpu_us / 3.6e9 * r.vcpu_hour as cost_cpu,
    u.bytes_sent / 1e9 * r.gb_out + u.bytes_received / 1e9 * r.gb_in as cost_traffic,
    stored_gb_months(u.bytes_stored, s.raw_retention) * r.gb_month_stored as cost_storage,
    u.cpu_us / 3.6e9 * r.vcpu_hour + u.bytes_sent / 1e9 * r.gb_out + u.bytes_received / 1e9 * r.gb_in
        + stored_gb_months(u.bytes_stored, s.raw_retention) * r.gb_month_stored as cost,
    r.currency
from (
    select time_bucket(interval '1 hour', "time") as bucket, endpoint_id, location,
        count(*) filter (where outcome <> 'skipped') as probes, sum(cpu_us) as cpu_us,
        sum(bytes_sent) as bytes_sent, sum(bytes_received) as bytes_received,
        sum(pg_column_size(metrics.*) + 48)::bigint as bytes_stored
    from metrics
    group by bucket, endpoint_id, location
) u
cross join settings s
left join lateral (
    select * from rate_cards
    where (location is null or location = u.location) and valid_from <= u.bucket
    order by location is null, valid_from desc limit 1
) r on true;

create view cost_daily as
select u.bucket, u.endpoint_id, u.location, u.probes, u.cpu_us, u.bytes_sent, u.bytes_received, u.bytes_stored,
    u.cpu_us / 3.6e9 * r.vcpu_hour as cost_cpu,
    u.bytes_sent / 1e9 * r.gb_out + u.bytes_received / 1e9 * r.gb_in as cost_traffic,
    stored_gb_months(u.bytes_stored, s.raw_retention) * r.gb_month_stored as cost_storage,
    u.cpu_us / 3.6e9 * r.vcpu_hour + u.bytes_sent / 1e9 * r.gb_out + u.bytes_received / 1e9 * r.gb_in
        + stored_gb_months(u.bytes_stored, s.raw_retention) * r.gb_month_stored as cost,
    r.currency
from (
    select time_bucket(interval '1 day', "time") as bucket, endpoint_id, location,
        count(*) filter (where outcome <> 'skipped') as probes, sum(cpu_us) as cpu_us,
        sum(bytes_sent) as bytes_sent, sum(bytes_received) as bytes_received,
        sum(pg_column_size(metrics.*) + 48)::bigint as bytes_stored
    from metrics
    group by bucket, endpoint_id, location
) u
cross join settings s
left join lateral (
    select * from rate_cards
    where (location is null or location = u.location) and valid_from <= u.bucket
    order by location is null, valid_from desc limit 1
) r on true;

-- What one probe of each URL costs now, per location: means of the last hour's probes, priced by the card in force now;
-- per month at the interval that the endpoint has today.
create view unit_price_now as
select e.id as endpoint_id, e.name, e.url, u.location, u.probes,
    u.cpu_us_per_probe, u.bytes_sent_per_probe, u.bytes_received_per_probe, u.bytes_stored_per_probe,
    p.price as price_per_probe,
    p.price * 1000 as price_per_1000_probes,
    p.price * (730 * 3600 / e.interval_s) as price_per_month,
    r.currency
from (
    select endpoint_id, location, count(*) as probes,
        avg(cpu_us) as cpu_us_per_probe, avg(bytes_sent) as bytes_sent_per_probe,
        avg(bytes_received) as bytes_received_per_probe,
        avg(pg_column_size(metrics.*) + 48) as bytes_stored_per_probe
    from metrics
    where "time" >= now() - interval '1 hour' and outcome <> 'skipped'
    group by endpoint_id, location
) u
join endpoints e on e.id = u.endpoint_id and e.enabled
cross join settings s
join lateral (
    select * from rate_cards
    where (location is null or location = u.location) and valid_from <= now()
    order by location is null, valid_from desc limit 1
) r on true
cross join lateral (
    select u.cpu_us_per_probe / 3.6e9 * r.vcpu_hour
        + u.bytes_sent_per_probe / 1e9 * r.gb_out + u.bytes_received_per_probe / 1e9 * r.gb_in
        + stored_gb_months(1, s.raw_retention) * u.bytes_stored_per_probe * r.gb_month_stored as price
) p;

-- The version of this schema, readable by every role of ours.
create view schema_version as select max(version) as version from refinery_schema_history;
