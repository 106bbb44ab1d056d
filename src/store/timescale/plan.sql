-- For each location what is due there, and what its probes took in the last $1 seconds (null where none was made).
-- Stored bytes as in cost_hourly: the row, its line pointer and its entry in the unique index.
with place as (
    select location from agents group by location
    union
    select unnest(locations) from endpoint_schedules where upper_inf(valid)
),
due as (
    select p.location, count(s.endpoint_id) as endpoints,
        coalesce(sum(1000.0 / s.interval_ms), 0)::double precision as probes_per_s,
        coalesce(sum(s.timeout_ms::double precision / s.interval_ms), 0) as in_flight_worst
    from place p
    left join endpoint_schedules s
        on upper_inf(s.valid) and (s.locations is null or p.location = any (s.locations))
    group by p.location
),
taken as (
    select location, avg(duration_us)::double precision as duration_us,
        avg(pg_column_size(metrics.*) + 48)::double precision as stored_bytes,
        avg(bytes_sent)::double precision as sent_bytes, avg(bytes_received)::double precision as received_bytes,
        count(*) filter (where reason = 'overload') as overloaded
    from metrics
    where "time" >= now() - $1::double precision * interval '1 second'
    group by location
),
-- The whole of each process, what it takes beside its probes included.
used as (
    select location, (sum(cpu_us) / nullif(sum(probes), 0))::double precision as cpu_us
    from agent_usage
    where "time" >= now() - $1::double precision * interval '1 second'
    group by location
)
select d.location, d.endpoints, d.probes_per_s, d.in_flight_worst,
    u.cpu_us, t.duration_us, t.stored_bytes, t.sent_bytes, t.received_bytes, coalesce(t.overloaded, 0)
from due d
left join taken t on t.location = d.location
left join used u on u.location = d.location
order by d.location
