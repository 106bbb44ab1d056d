insert into agent_usage (agent, location, "time", cpu_us, rss_bytes, bytes_sent, bytes_received, probes, rows_written)
values ($1, $2, date_trunc('minute', $3::timestamptz), $4, $5, $6, $7, $8, $9)
on conflict do nothing
