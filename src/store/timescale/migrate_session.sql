set statement_timeout = 0;
set idle_in_transaction_session_timeout = 0;
set client_min_messages = warning
