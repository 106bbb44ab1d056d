-- Every endpoint of a share ($1 of $2) and location ($3). The left join: rows from before the history began have none.
select e.id, e.kind, e.url, e.interval_s, e.timeout_ms, e.degraded_after_ms, e.cert_warn_days, e.regex, e.regex_not,
    nullif(e.settings, '{}'::jsonb)::text,
    (extract(epoch from coalesce(c.changed_at, e.updated_at)) * 1000000)::bigint
from endpoints e
left join endpoint_changes c on c.endpoint_id = e.id
where e.enabled
  and (e.locations is null or $3 = any (e.locations))
  and ((e.id % $2::bigint) + $2::bigint) % $2::bigint = $1::bigint
