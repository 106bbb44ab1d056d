select pg_try_advisory_lock(hashtextextended('watcher migrate', 0))
