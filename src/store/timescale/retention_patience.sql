set local statement_timeout = '300s'
