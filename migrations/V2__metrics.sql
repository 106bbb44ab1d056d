-- The samples. Labels are those of src/domain/sample.rs, in its order (a test compares them).

create type probe_outcome as enum ('up', 'degraded', 'down', 'skipped');

create type probe_reason as enum (
    'slow', 'certificate_expiring',
    'dns_not_found', 'dns_error', 'dns_timeout',
    'connect_refused', 'connect_unreachable', 'connect_timeout', 'connect_error',
    'tls_expired', 'tls_not_yet_valid', 'tls_wrong_name', 'tls_untrusted', 'tls_certificate', 'tls_handshake',
    'tls_timeout',
    'processing_closed', 'processing_protocol', 'processing_timeout',
    'transfer_error', 'transfer_timeout', 'decode_error',
    'redirect_limit', 'redirect_invalid', 'address_denied',
    'status_mismatch', 'body_mismatch', 'body_forbidden', 'regex_timeout',
    'overload', 'host_limit', 'shutdown', 'clock_step', 'descriptor_limit', 'port_exhausted', 'resolver_down',
    'quarantined', 'agent_error'
);

-- Columns stand widest first, so that nothing is lost to alignment: at 2 000 rows a second 8 bytes are 1.4 GB a day.
-- No foreign key to `endpoints`: it would deadlock with the creation of chunks, and rows outlive their endpoint.
create table metrics (
    "time" timestamptz not null,
    endpoint_id bigint not null,
    tls_not_after timestamptz,
    outcome probe_outcome not null,
    reason probe_reason,
    lag_us integer,
    resolve_us integer,
    connect_us integer,
    tls_us integer,
    processing_us integer,
    transfer_us integer,
    duration_us integer,
    error_us integer,
    bytes_sent integer not null default 0,
    bytes_received integer not null default 0,
    cpu_us integer not null default 0,
    status_code smallint,
    http_version smallint,
    hops smallint not null default 0,
    matched boolean,
    suspect boolean not null default false,
    location text not null,
    agent text not null,
    remote_ip inet,
    detail text
);

-- Six hours a chunk: at 2 000 rows a second (24 GB a day, heap and index) a chunk is 6 GB and its unique index 2 GB,
-- which stays in the memory of a modest server while it is written; 30 days are 120 chunks, which planning still likes,
-- and retention gives space back four times a day.
select create_hypertable('metrics', by_range('time', interval '6 hours'), create_default_indexes => false);

-- A sample's identity: its place on the grid. Serves "one endpoint over time" as well.
create unique index metrics_identity on metrics (endpoint_id, location, "time");

-- Rows arrive in order of time, so block ranges find "the last minutes of everything" (the audit, the views) without
-- reading a chunk from its start, at a thousandth of the size of a B-tree.
create index metrics_time on metrics using brin ("time") with (pages_per_range = 32, autosummarize = on);

comment on table metrics is 'One row per due probe and location: (endpoint_id, location, time) is unique.';
comment on column metrics."time" is 'When the probe was due (a point of the endpoint''s grid); it started lag_us later.';
comment on column metrics.reason is 'Null when up; the failure when down, else why degraded or skipped.';
comment on column metrics.lag_us is 'Start after the due time, µs.';
comment on column metrics.resolve_us is 'Name to address, µs; null when the name came from the cache.';
comment on column metrics.duration_us is 'The whole probe, µs, by the monotonic clock.';
comment on column metrics.error_us is 'Upper bound on what the agent itself added to duration_us, µs.';
comment on column metrics.suspect is 'error_us is above the accepted bound: left out of percentiles.';
comment on column metrics.http_version is '10, 11 or 20.';
comment on column metrics.bytes_sent is 'On the wire, TLS included, TCP/IP headers not.';
comment on column metrics.cpu_us is 'CPU time of the agent for this probe, kernel time included, µs.';
