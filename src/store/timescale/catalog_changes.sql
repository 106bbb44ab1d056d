-- What became visible between the snapshot of the previous look ($4) and this one, in whatever order it was committed.
-- At least one row, for the new snapshot; e.id is null where the endpoint is gone, disabled or for other locations.
with look as (
    select pg_current_snapshot() as snapshot, $4::text::pg_snapshot as previous
)
select look.snapshot::text,
    pg_snapshot_xmax(look.snapshot) < pg_snapshot_xmax(look.previous) as went_back,
    c.endpoint_id,
    e.id, e.kind, e.url, e.interval_s, e.timeout_ms, e.degraded_after_ms, e.cert_warn_days, e.regex, e.regex_not,
    nullif(e.settings, '{}'::jsonb)::text,
    (extract(epoch from c.changed_at) * 1000000)::bigint
from look
left join endpoint_changes c
    on c.xid >= pg_snapshot_xmin(look.previous) and not pg_visible_in_snapshot(c.xid, look.previous)
    and ((c.endpoint_id % $2::bigint) + $2::bigint) % $2::bigint = $1::bigint
left join endpoints e
    on e.id = c.endpoint_id and e.enabled and (e.locations is null or $3 = any (e.locations))
