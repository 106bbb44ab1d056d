-- What is wanted. `id` is null for what is not there yet.
create temporary table wanted (
    ordinal bigint not null,
    id bigint,
    name text,
    group_name text,
    tags text[] not null,
    kind text not null,
    url text not null,
    interval_s integer not null,
    timeout_ms integer,
    degraded_after_ms integer,
    cert_warn_days integer,
    regex text,
    regex_not text,
    locations text[],
    enabled boolean not null,
    settings jsonb not null
) on commit drop;
