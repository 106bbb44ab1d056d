select note_unheard_changes($1, $2, array[$3::integer, $4::integer, $8::integer, $9::integer], $5, $6, $7)
