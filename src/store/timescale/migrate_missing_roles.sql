select role from unnest(array['watcher_agent', 'watcher_reader']) as role
where not exists (select from pg_roles where rolname = role)
