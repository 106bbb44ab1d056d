-- The roles and exactly what each may do. Run after every migration, since the roles may come later than the tables.
-- A role that is missing and may not be created here is left out with a warning; others of this cluster may be
-- creating it at the same time.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['watcher_agent', 'watcher_reader'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin', wanted);
            exception
                when duplicate_object or unique_violation then null;
                when insufficient_privilege then null;
            end;
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'watcher_agent') then
        execute format('grant temporary on database %I to watcher_agent', current_database());
        execute format('grant usage on schema %I to watcher_agent', current_schema());
        -- No select on metrics: staging lists its columns, and ON CONFLICT DO NOTHING names no target.
        grant insert on metrics, gaps, endpoint_gaps, agent_usage, refused_samples to watcher_agent;
        grant select on endpoints, endpoint_changes, schema_version to watcher_agent;
        grant execute on function note_unheard_changes to watcher_agent;
        -- Row-level security: its own rows.
        grant select, insert, update, delete on agents, endpoint_problems, held_removals to watcher_agent;
    end if;
    if exists (select from pg_roles where rolname = 'watcher_reader') then
        execute format('grant usage on schema %I to watcher_reader', current_schema());
        grant select on latency_5m, latency_hourly, latency_daily, availability_hourly, availability_daily,
            coverage_hourly, cost_hourly, cost_daily, unit_price_now, schema_version, refused_samples to watcher_reader;
    end if;
end $$;

select apply_policies();

-- After a restore into another cluster transaction numbers start anew: changes from its future would look new at
-- every look of every agent.
update endpoint_changes set xid = pg_current_xact_id() where xid > pg_current_xact_id();
