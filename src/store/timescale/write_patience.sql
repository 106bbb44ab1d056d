-- The last argument is is_local: true where a session's settings do not last.
select set_config('statement_timeout', $1::text, false)
