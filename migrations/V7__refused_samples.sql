-- Samples that `metrics` refused, kept until somebody looks; and gaps that can be told twice.

-- One row per refused sample, by the sample's identity, so that a second try adds nothing. `sample` has the columns of
-- `metrics`: json_populate_record(null::metrics, sample) is the row. json and not jsonb, which takes no \u0000.
create table refused_samples (
    "time" timestamptz not null,
    endpoint_id bigint not null,
    location text not null,
    agent text not null,
    sqlstate text,
    reason text not null,
    sample json not null,
    recorded_at timestamptz not null default now(),
    db_role name not null default current_user,
    primary key (endpoint_id, location, "time"),
    constraint refused_samples_reason_at_most_1024_bytes check (octet_length(reason) <= 1024)
);
create index refused_samples_recorded on refused_samples (recorded_at);
comment on table refused_samples is 'Samples that metrics refused, and why. To be looked at, put back or deleted.';
comment on column refused_samples.sqlstate is 'PostgreSQL''s code; null when the agent itself refused the sample.';
comment on column refused_samples.sample is 'The row as it was to be, by the columns of metrics.';

-- An agent adds, under its own role; who may read is a matter of grants.
alter table refused_samples enable row level security;
create policy refused_samples_own_rows on refused_samples for insert with check (db_role = current_user);
create policy refused_samples_read on refused_samples for select using (true);

-- A gap whose acknowledgement was lost, or that a failover lost, is told again: it is one row however often.
delete from gaps a using gaps b
where a.ctid > b.ctid
  and (a.location, a.partition_index, a.partition_count, a.agent, a.reason, a.during)
    = (b.location, b.partition_index, b.partition_count, b.agent, b.reason, b.during);
create unique index gaps_identity on gaps (location, partition_index, partition_count, agent, reason, during);

-- As before, and refused samples.
create or replace function apply_retention() returns bigint language plpgsql as $$
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
    delete from endpoint_gaps where upper(during) < oldest;
    delete from agent_usage where "time" < oldest;
    delete from agents where ended < oldest;
    delete from refused_samples where recorded_at < oldest;
    return dropped;
end $$;
