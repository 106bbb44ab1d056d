-- Ordinals $1 to $2.
insert into endpoints (name, group_name, tags, kind, url, interval_s, timeout_ms, degraded_after_ms, cert_warn_days,
    regex, regex_not, locations, enabled, settings)
select name, group_name, tags, kind, url, interval_s, timeout_ms, degraded_after_ms, cert_warn_days,
    regex, regex_not, locations, enabled, settings
from wanted
where id is null and ordinal between $1 and $2
order by ordinal
