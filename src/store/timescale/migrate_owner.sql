select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'refinery_schema_history'::regclass
