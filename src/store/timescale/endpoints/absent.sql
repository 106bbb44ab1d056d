select e.id, e.name, e.group_name, e.tags, e.kind, e.url, e.interval_s, e.timeout_ms, e.degraded_after_ms,
    e.cert_warn_days, e.regex, e.regex_not, e.locations, e.enabled, e.settings
from endpoints e
where not exists (select from wanted w where w.id = e.id)
order by e.id
