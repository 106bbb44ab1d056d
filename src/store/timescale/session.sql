-- So that the server frees what a dead or stuck agent holds: its statements, open transactions and sockets.
set statement_timeout = '15s';
set idle_in_transaction_session_timeout = '15s';
set tcp_keepalives_idle = 5;
set tcp_keepalives_interval = 3;
set tcp_keepalives_count = 3;
set tcp_user_timeout = '15s';
set client_connection_check_interval = '5s';
set timezone = 'UTC';
