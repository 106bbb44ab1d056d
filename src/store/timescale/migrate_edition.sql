select coalesce(current_setting('timescaledb.license', true), '')
