-- Of $1, the endpoints that are still in the table, disabled or for other locations.
select id from endpoints where id = any ($1)
