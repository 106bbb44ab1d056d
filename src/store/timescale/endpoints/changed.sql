select w.ordinal, e.id, e.name, e.group_name, e.tags, e.kind, e.url, e.interval_s, e.timeout_ms, e.degraded_after_ms,
    e.cert_warn_days, e.regex, e.regex_not, e.locations, e.enabled, e.settings
from wanted w join endpoints e on e.id = w.id
where (e.name, e.group_name, e.tags, e.kind, e.url, e.interval_s, e.timeout_ms, e.degraded_after_ms, e.cert_warn_days,
       e.regex, e.regex_not, e.locations, e.enabled, e.settings)
  is distinct from
      (w.name, w.group_name, w.tags, w.kind, w.url, w.interval_s, w.timeout_ms, w.degraded_after_ms, w.cert_warn_days,
       w.regex, w.regex_not, w.locations, w.enabled, w.settings)
order by w.ordinal
