-- Retention and compression. TimescaleDB Community runs policies of its own; the Apache edition has none, and `watcher
-- up` calls apply_retention() every hour.

create function timescaledb_is_community() returns boolean language sql stable
return coalesce(current_setting('timescaledb.license', true), '') = 'timescale';

-- Brings the policies in line with `settings`. Called by the migration and by a change of `settings`; does nothing in
-- the Apache edition. Dynamic, since the functions that it calls exist only in Community.
create function apply_policies() returns void language plpgsql as $$
declare
    wanted settings;
begin
    if not timescaledb_is_community() then
        return;
    end if;
    select * into strict wanted from settings;
    execute format('select remove_retention_policy(%L, if_exists => true)', 'metrics');
    if wanted.raw_retention is not null then
        execute format('select add_retention_policy(%L, drop_after => %L::interval)', 'metrics', wanted.raw_retention);
    end if;
    if to_regproc('add_columnstore_policy') is not null then
        execute format('call remove_columnstore_policy(%L, if_exists => true)', 'metrics');
    else
        execute format('select remove_compression_policy(%L, if_exists => true)', 'metrics');
    end if;
    if wanted.compress_after is null then
        return;
    end if;
    -- Once: what is compressed already was compressed in this order.
    if not exists (
        select from timescaledb_information.hypertables
        where hypertable_schema = current_schema() and hypertable_name = 'metrics' and compression_enabled
    ) then
        execute 'alter table metrics set (timescaledb.compress, timescaledb.compress_segmentby = ''endpoint_id'', '
            || 'timescaledb.compress_orderby = ''"time"'')';
    end if;
    if to_regproc('add_columnstore_policy') is not null then
        execute format('call add_columnstore_policy(%L, after => %L::interval)', 'metrics', wanted.compress_after);
    else
        execute format('select add_compression_policy(%L, compress_after => %L::interval)', 'metrics',
            wanted.compress_after);
    end if;
end $$;

create function settings_changed() returns trigger language plpgsql as $$
begin
    perform apply_policies();
    return null;
end $$;
create trigger settings_changed after update on settings
    for each row when (old.* is distinct from new.*) execute function settings_changed();

-- Removes what is older than settings.raw_retention: chunks of metrics (in both editions: a policy that runs as well
-- finds nothing left) and the history that they were judged by. Returns the number of chunks dropped; null when
-- another process is at it. One at a time, by an advisory lock of the transaction; never waits for a reader's lock
-- longer than 5 s, since writers would queue behind it.
create function apply_retention() returns bigint language plpgsql as $$
declare
    oldest timestamptz;
    dropped bigint := 0;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('watcher retention', 0)) then
        return null;
    end if;
    -- Changes of endpoints long gone: every agent has read them, or reads everything when it starts.
    delete from endpoint_changes c
    where c.changed_at < now() - interval '1 day' and not exists (select from endpoints e where e.id = c.endpoint_id);
    select now() - raw_retention into oldest from settings;
    if oldest is null then
        return 0;
    end if;
    set local lock_timeout = '5s';
    select count(*) into dropped from drop_chunks('metrics', older_than => oldest);
    delete from endpoint_schedules where upper(valid) < oldest;
    delete from gaps where upper(during) < oldest;
    delete from agent_usage where "time" < oldest;
    delete from agents where ended < oldest;
    return dropped;
end $$;
