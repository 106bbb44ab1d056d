-- Ordinals $1 to $2. A row that is as wanted is left alone: no new updated_at, nothing told to the agents.
update endpoints e
set name = w.name, group_name = w.group_name, tags = w.tags, kind = w.kind, url = w.url, interval_s = w.interval_s,
    timeout_ms = w.timeout_ms, degraded_after_ms = w.degraded_after_ms, cert_warn_days = w.cert_warn_days,
    regex = w.regex, regex_not = w.regex_not, locations = w.locations, enabled = w.enabled, settings = w.settings
from wanted w
where e.id = w.id and w.ordinal between $1 and $2
  and (e.name, e.group_name, e.tags, e.kind, e.url, e.interval_s, e.timeout_ms, e.degraded_after_ms, e.cert_warn_days,
       e.regex, e.regex_not, e.locations, e.enabled, e.settings)
  is distinct from
      (w.name, w.group_name, w.tags, w.kind, w.url, w.interval_s, w.timeout_ms, w.degraded_after_ms, w.cert_warn_days,
       w.regex, w.regex_not, w.locations, w.enabled, w.settings)
