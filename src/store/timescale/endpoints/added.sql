select ordinal from wanted where id is null order by ordinal
