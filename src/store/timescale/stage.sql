copy pg_temp.metrics_staging_1 (
    "time", endpoint_id, tls_not_after, outcome, reason, lag_us, resolve_us, connect_us, tls_us, processing_us,
    transfer_us, duration_us, error_us, bytes_sent, bytes_received, cpu_us, status_code, http_version, hops, matched,
    suspect, location, agent, remote_ip, detail
) from stdin (format binary)
