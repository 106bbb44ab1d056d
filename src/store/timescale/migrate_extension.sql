select installed_version is not null from pg_available_extensions where name = 'timescaledb'
