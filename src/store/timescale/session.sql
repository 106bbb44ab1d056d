-- So that the server frees what a dead or stuck agent holds: its statements, open transactions and sockets. Sockets
-- after 14 s: probes go out 5, 8, 11 and 14 s after the last sign of life, and at the first that is due later than
-- tcp_user_timeout the kernel gives up; with 15 s that would be the one at 17 s.
set statement_timeout = '15s';
set idle_in_transaction_session_timeout = '15s';
set tcp_keepalives_idle = 5;
set tcp_keepalives_interval = 3;
set tcp_keepalives_count = 3;
set tcp_user_timeout = '12s';
set client_connection_check_interval = '5s';
set timezone = 'UTC';
