insert into batch (id, encoded) values (?1, ?2)
