-- Who probed and when, what they could not do, and what it costs.

-- One row a session, that is, a run of an agent process. `started` is the first instant that it answers for; with
-- end_reason 'stopped', `ended` is the instant at which its schedule stopped.
create table agents (
    session_id bigint generated always as identity primary key,
    name text not null,
    location text not null,
    arm text not null default 'default',
    partition_index integer not null,
    partition_count integer not null,
    version text not null,
    started timestamptz not null,
    last_seen timestamptz not null,
    ended timestamptz,
    end_reason text,
    db_role name not null default current_user,
    constraint agents_partition check (partition_index >= 0 and partition_index < partition_count),
    constraint agents_ended_with_a_reason
        check ((ended is null) = (end_reason is null) and end_reason in ('stopped', 'died')),
    constraint agents_end_after_they_start check (ended >= started)
);
create unique index agents_session on agents (location, partition_index, partition_count, name, started);
create index agents_open on agents (location) where ended is null;

-- Spans in which due ticks left no row, and why. Append-only: written by an agent for itself, by its successor or by
-- its supervisor.
create table gaps (
    agent text not null,
    location text not null,
    partition_index integer not null,
    partition_count integer not null,
    during tstzrange not null,
    reason text not null,
    samples bigint,
    detail text,
    recorded_at timestamptz not null default now(),
    db_role name not null default current_user,
    constraint gaps_partition check (partition_index >= 0 and partition_index < partition_count),
    constraint gaps_during_not_empty check (not isempty(during)),
    constraint gaps_reason_is_known check (reason in
        ('paused', 'clock_step', 'agent_died', 'buffer_full', 'catalog_behind', 'refused', 'spool_full', 'spool_damaged')),
    constraint gaps_samples_not_negative check (samples >= 0)
);
create index gaps_during on gaps using gist (during);
comment on column gaps.samples is 'Samples lost, where they were counted.';

-- Why a row of `endpoints` is not being probed. Gone when it is.
create table endpoint_problems (
    endpoint_id bigint not null,
    location text not null,
    field text not null,
    message text not null,
    agent text not null,
    since timestamptz not null default now(),
    db_role name not null default current_user,
    primary key (endpoint_id, location, field, message),
    -- Keeps a row of the primary key within a page of its index.
    constraint endpoint_problems_message_at_most_1024_bytes check (octet_length(message) <= 1024),
    constraint endpoint_problems_field_at_most_255_bytes check (octet_length(field) <= 255)
);
comment on table endpoint_problems is 'Why a row of endpoints is not being probed, in words, by location.';

-- What an agent process used, per minute, by its own operating system's account.
create table agent_usage (
    "time" timestamptz not null,
    cpu_us bigint not null,
    rss_bytes bigint not null,
    bytes_sent bigint not null,
    bytes_received bigint not null,
    probes integer not null,
    rows_written integer not null,
    location text not null,
    agent text not null,
    primary key (agent, location, "time")
);
create index agent_usage_time on agent_usage ("time");
comment on column agent_usage."time" is 'Start of the minute.';
comment on column agent_usage.cpu_us is 'User and system time of the whole process in this minute, µs.';

-- Prices. The card in force is the latest by valid_from; one for a location goes before one for any (null).
create table rate_cards (
    location text,
    valid_from timestamptz not null,
    vcpu_hour numeric not null check (vcpu_hour >= 0),
    gb_out numeric not null check (gb_out >= 0),
    gb_in numeric not null check (gb_in >= 0),
    gb_month_stored numeric not null check (gb_month_stored >= 0),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    unique nulls not distinct (location, valid_from)
);
comment on table rate_cards is 'Prices: per vCPU-hour, GB (10^9 bytes) out and in, GB-month stored. Insert your own.';

-- An example to be replaced by your own: list prices of Amazon EC2 in us-east-1, on demand: m5.large at 0.096 an hour
-- with 2 vCPU; first tier of traffic to the internet; traffic in is free; gp3 volumes.
insert into rate_cards (location, valid_from, vcpu_hour, gb_out, gb_in, gb_month_stored, currency)
values (null, '-infinity', 0.048, 0.09, 0, 0.08, 'USD');

-- Settings of the store; one row.
create table settings (
    one boolean primary key default true check (one),
    raw_retention interval default interval '30 days',
    compress_after interval default interval '1 day',
    constraint settings_raw_retention_at_least_1_day check (raw_retention >= interval '1 day'),
    constraint settings_compress_after_at_least_1_hour check (compress_after >= interval '1 hour')
);
insert into settings default values;
comment on table settings is 'One row: update settings set raw_retention = ''90 days''.';
comment on column settings.raw_retention is
    'How long rows of metrics, and the history they are judged by, are kept; null: for ever. 2 000 rows a second are 24 GB a day.';
comment on column settings.compress_after is 'TimescaleDB Community: age at which chunks go to the columnstore; null: never.';

-- An agent sees, and may change, what its own database role wrote. The owner of the tables is not bound by this.
alter table agents enable row level security;
create policy agents_own_rows on agents using (db_role = current_user) with check (db_role = current_user);
alter table endpoint_problems enable row level security;
create policy endpoint_problems_own_rows on endpoint_problems
    using (db_role = current_user) with check (db_role = current_user);
