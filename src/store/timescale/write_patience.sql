-- The second parameter is is_local: true where the session is not ours.
select set_config('statement_timeout', $1::text, $2::boolean)
