-- Which server this is and which history it goes on with: a promoted standby has the same number and a new timeline.
select
    (select system_identifier from pg_control_system())::text || '/'
        || case when pg_is_in_recovery() then 'standby' else left(pg_walfile_name(pg_current_wal_lsn()), 8) end,
    (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
    extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8
