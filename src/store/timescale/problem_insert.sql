insert into endpoint_problems (endpoint_id, location, field, message, agent, since)
select $1, $2, field, message, $5, least($6, now()) from unnest($3::text[], $4::text[]) as found (field, message)
on conflict (endpoint_id, location, field, message) do nothing
