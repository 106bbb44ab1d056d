select to_regclass('schema_version') is not null, to_regclass('refinery_schema_history') is not null
