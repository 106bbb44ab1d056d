-- A person waits for these statements, and they may move a million rows: no deadline but patience with locks.
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = '10min';
set local lock_timeout = '30s';
