-- Columns are listed, not taken from metrics, which the agent's role may not read. In the transaction that uses it:
-- behind a pooler the next one may run in another session. Its number changes with the columns, since there the table
-- may outlive the release that made it.
create temporary table if not exists metrics_staging_1 (
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
    bytes_sent integer not null,
    bytes_received integer not null,
    cpu_us integer not null,
    status_code smallint,
    http_version smallint,
    hops smallint not null,
    matched boolean,
    suspect boolean not null,
    location text not null,
    agent text not null,
    remote_ip inet,
    detail text
) on commit delete rows
