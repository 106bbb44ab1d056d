-- One that was taken for dead and is heard of lives.
update agents
set last_seen = greatest(last_seen, $2), unsaved_since = coalesce($3, unsaved_since),
    ended = case end_reason when 'stopped' then ended end,
    end_reason = case end_reason when 'stopped' then end_reason end
where session_id = $1
