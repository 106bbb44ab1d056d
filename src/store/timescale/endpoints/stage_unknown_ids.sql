select w.ordinal, w.id
from wanted w
where w.id is not null and not exists (select from endpoints e where e.id = w.id)
order by w.ordinal
