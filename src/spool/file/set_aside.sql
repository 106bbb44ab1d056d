insert or replace into damaged (id, set_aside_s, why, encoded)
select id, unixepoch(), ?2, case when length(encoded) <= ?3 then encoded end from batch where id = ?1
