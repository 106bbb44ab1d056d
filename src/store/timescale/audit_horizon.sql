select (extract(epoch from until) * 1000000)::bigint from audit_horizon
