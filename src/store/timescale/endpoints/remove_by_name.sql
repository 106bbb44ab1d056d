-- $1 is a LIKE pattern; $2 a group, any where it is null.
delete from endpoints
where name like $1 and ($2::text is null or group_name = $2)
returning id, name, group_name, tags, kind, url, interval_s, timeout_ms, degraded_after_ms, cert_warn_days,
    regex, regex_not, locations, enabled, settings
