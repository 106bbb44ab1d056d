select id, length(encoded) from batch order by id desc
