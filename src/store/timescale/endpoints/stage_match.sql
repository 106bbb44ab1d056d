-- Group and name are the identity of what names no id.
update wanted w set id = e.id
from endpoints e
where w.id is null and w.name is not null and e.name = w.name and e.group_name is not distinct from w.group_name
