-- Endpoints that are not probed somewhere, with why: one row a problem.
select e.id, e.name, e.group_name, e.tags, e.kind, e.url, e.interval_s, e.timeout_ms, e.degraded_after_ms,
    e.cert_warn_days, e.regex, e.regex_not, e.locations, e.enabled, e.settings,
    p.location, p.field, p.message, p.since
from endpoint_problems p join endpoints e on e.id = p.endpoint_id
order by e.group_name nulls first, e.name nulls last, e.id, p.location, p.field, p.message
