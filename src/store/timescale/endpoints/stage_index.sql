-- Writing goes by ranges of ordinals.
create index on wanted (ordinal);
analyze wanted;
