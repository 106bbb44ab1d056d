delete from damaged where id not in (select id from damaged order by set_aside_s desc, id desc limit ?1)
