-- Numbers $1 to $2. Multiplicative hashing spreads the intervals evenly over their range, the same for the same seed.
insert into wanted (ordinal, id, name, group_name, tags, kind, url, interval_s, timeout_ms, degraded_after_ms,
    cert_warn_days, regex, regex_not, locations, enabled, settings)
select n, null, $3::text || '-' || lpad(n::text, greatest(6, length(n::text)), '0'), $4::text, '{}', 'http',
    $5::text || '/e/' || n,
    $6::integer + (((n * 2654435769 + $8::bigint * 2246822519 & 4294967295) * ($7::integer - $6::integer + 1)) >> 32)::integer,
    null, null, null, $9::text, null, null, true, '{}'
from generate_series($1::bigint, $2::bigint) as n
