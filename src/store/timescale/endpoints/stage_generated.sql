-- Numbers $1 to $2. Multiplicative hashing spreads the intervals evenly over their range, the same for the same seed.
-- By √2, not by the golden ratio as the grid's phases: with one hash for both the endpoints that are due together are
-- neighbours in their intervals too, and seconds of four times the mean follow on seconds of nothing.
insert into wanted (ordinal, id, name, group_name, tags, kind, url, interval_s, timeout_ms, degraded_after_ms,
    cert_warn_days, regex, regex_not, locations, enabled, settings)
select n, null, $3::text || '-' || lpad(n::text, greatest(6, length(n::text)), '0'), $4::text, '{}', 'http',
    $5::text || '/e/' || n,
    $6::integer + (((n * 1779033703 + $8::bigint * 2246822519 & 4294967295) * ($7::integer - $6::integer + 1)) >> 32)::integer,
    null, null, null, $9::text, null, null, true, '{}'
from generate_series($1::bigint, $2::bigint) as n
