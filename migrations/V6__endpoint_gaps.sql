-- Reasons that concern one endpoint, kept after they have passed; how far an agent's samples are saved; removals held.

-- Spans in which due ticks of one endpoint left no row, and why. What concerns a whole share is in `gaps`.
create table endpoint_gaps (
    endpoint_id bigint not null,
    location text not null,
    during tstzrange not null,
    reason text not null,
    agent text not null,
    recorded_at timestamptz not null default now(),
    db_role name not null default current_user,
    constraint endpoint_gaps_during_not_empty check (not isempty(during)),
    constraint endpoint_gaps_reason_is_known check (reason in ('catalog_behind', 'refused', 'endpoint_problem'))
);
-- Told twice, it is one row.
create unique index endpoint_gaps_identity on endpoint_gaps (endpoint_id, location, reason, during);
create unique index endpoint_gaps_open on endpoint_gaps (endpoint_id, location)
    where reason = 'endpoint_problem' and upper_inf(during);
comment on table endpoint_gaps is
    'Spans in which ticks of one endpoint left no row, and why. endpoint_problem without an end stands now: see endpoint_problems.';

-- endpoint_problems says what is wrong now; this remembers since when and until when something was.
create function endpoint_problems_found() returns trigger language plpgsql security definer as $$
begin
    insert into endpoint_gaps (endpoint_id, location, during, reason, agent, db_role)
    select endpoint_id, location, tstzrange(min(since), null), 'endpoint_problem', min(agent), min(db_role::text)
    from new_rows group by endpoint_id, location
    on conflict do nothing;
    return null;
end $$;

create function endpoint_problems_cleared() returns trigger language plpgsql security definer as $$
begin
    update endpoint_gaps g
    set during = tstzrange(lower(g.during), greatest(clock_timestamp(), lower(g.during) + interval '1 microsecond'))
    from (select distinct endpoint_id, location from old_rows) o
    where g.endpoint_id = o.endpoint_id and g.location = o.location
      and g.reason = 'endpoint_problem' and upper_inf(g.during)
      and not exists (
          select from endpoint_problems p where p.endpoint_id = o.endpoint_id and p.location = o.location);
    return null;
end $$;

create trigger endpoint_problems_found after insert on endpoint_problems
    referencing new table as new_rows for each statement execute function endpoint_problems_found();
create trigger endpoint_problems_cleared after delete on endpoint_problems
    referencing old table as old_rows for each statement execute function endpoint_problems_cleared();

insert into endpoint_gaps (endpoint_id, location, during, reason, agent)
select endpoint_id, location, tstzrange(min(since), null), 'endpoint_problem', min(agent)
from endpoint_problems group by endpoint_id, location;

-- Run as their owner, in this schema alone: an agent may not write what they write.
do $$
declare
    f regprocedure;
begin
    for f in select p.oid from pg_proc p
        where p.pronamespace = current_schema()::regnamespace
          and p.proname in ('endpoint_problems_found', 'endpoint_problems_cleared')
    loop
        execute format('alter function %s set search_path = pg_catalog, %I, pg_temp', f, current_schema());
        execute format('revoke execute on function %s from public', f);
    end loop;
end $$;

-- When an agent dies, what it may have held unsaved begins here, and not some fixed time ago.
alter table agents add column unsaved_since timestamptz;
comment on column agents.unsaved_since is
    'At last_seen, every sample due before this instant was stored or spooled. Null: not told.';

-- A large part of an agent's endpoints was deleted at once; it goes on probing them until `until`, or until somebody
-- says that it was meant.
create table held_removals (
    location text not null,
    partition_index integer not null,
    partition_count integer not null,
    agent text not null,
    endpoints bigint not null,
    endpoints_before bigint not null,
    since timestamptz not null,
    until timestamptz not null,
    confirmed boolean not null default false,
    db_role name not null default current_user,
    primary key (location, partition_index, partition_count, agent)
);
alter table held_removals enable row level security;
create policy held_removals_own_rows on held_removals
    using (db_role = current_user) with check (db_role = current_user);
comment on table held_removals is
    'Deleted endpoints that are still probed, since a large part went at once. Meant? update held_removals set confirmed = true; by mistake? insert them again.';

-- As before, and spans of single endpoints.
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
    return dropped;
end $$;

-- A session ended at $6 that had last heard of changes at $5: what was to be probed by it from $4 on, and it never knew.
-- Runs as its owner, since the history is not an agent's to read.
create function note_unheard_changes(
    agent text, at_location text, share integer[], began timestamptz, heard timestamptz, ended timestamptz
) returns bigint language sql security definer as $$
    with noted as (
        insert into endpoint_gaps (endpoint_id, location, during, reason, agent, db_role)
        select s.endpoint_id, at_location, s.valid * tstzrange(began, ended), 'catalog_behind', agent, session_user
        from endpoint_schedules s
        where lower(s.valid) > heard and s.valid && tstzrange(began, ended)
          and (s.locations is null or at_location = any (s.locations))
          and ((s.endpoint_id % share[2]) + share[2]) % share[2] = share[1]
        on conflict do nothing
        returning 1
    )
    select count(*) from noted
$$;
do $$
begin
    execute format('alter function note_unheard_changes set search_path = pg_catalog, %I, pg_temp', current_schema());
    revoke execute on function note_unheard_changes from public;
end $$;
