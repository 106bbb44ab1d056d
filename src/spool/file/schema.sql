-- A later release adds tables rather than change these: an older one must still find its own.
create table if not exists batch (
    id integer primary key,    -- order of arrival
    encoded blob not null      -- src/spool/codec.rs
) strict;

-- Batches whose bytes turned out damaged, for a person to look at. A few.
create table if not exists damaged (
    id integer primary key,
    set_aside_s integer not null,    -- Unix time
    why text not null,
    encoded blob
) strict;
