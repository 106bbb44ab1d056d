copy wanted (ordinal, id, name, group_name, tags, kind, url, interval_s, timeout_ms, degraded_after_ms, cert_warn_days,
    regex, regex_not, locations, enabled, settings)
from stdin (format binary)
