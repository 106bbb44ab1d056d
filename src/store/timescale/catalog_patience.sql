-- A million rows are read as fast as they are taken in.
set local statement_timeout = '120s'
