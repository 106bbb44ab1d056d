update agents
set last_seen = greatest(last_seen, $2), ended = greatest(started, $2), end_reason = 'stopped'
where session_id = $1
