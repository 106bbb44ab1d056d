-- Behind a pooler no session is ours, so limits are this transaction's.
set local statement_timeout = '15s';
set local idle_in_transaction_session_timeout = '15s'
