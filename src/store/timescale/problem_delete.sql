-- Of $1, at $2, what is not among the fields $3 and messages $4 any more.
delete from endpoint_problems p
where endpoint_id = $1 and location = $2
  and not exists (
      select from unnest($3::text[], $4::text[]) as still (field, message)
      where still.field = p.field and still.message = p.message)
