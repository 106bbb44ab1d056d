select count(*) from endpoints e where not exists (select from wanted w where w.id = e.id)
