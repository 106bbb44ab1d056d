-- One item names a row by its id, another the same row by its name.
select max(w.ordinal) as ordinal, w.id
from wanted w
where w.id is not null
group by w.id
having count(*) > 1
order by ordinal
