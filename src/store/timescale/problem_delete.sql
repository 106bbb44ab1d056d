-- Of $1, at $2, what is not among the fields $3 and messages $4 any more. What another arm has found and lives is its to
-- clear: $5 may have other settings, and so fewer problems.
delete from endpoint_problems p
where endpoint_id = $1 and location = $2
  and not exists (
      select from unnest($3::text[], $4::text[]) as still (field, message)
      where still.field = p.field and still.message = p.message)
  and not exists (
      select from agents a
      where a.name = p.agent and a.name <> $5 and a.location = p.location and a.arm_count > 1
        and a.ended is null and a.last_seen > now() - interval '1 minute')
