"""Memory of a probe that is under way: held open by a server that takes its time."""

import time

import account
from agents import prepared, ready, running
from world import REST, Process, Trouble, answers, free_port, wait_for

PROBES = 10_000
# Every endpoint is due once in this time, and is answered a second before its next tick.
INTERVAL = 30


def memory(bench, tls, version="1.1", probes=PROBES):
    name = "bench_memory"
    plain, secure = free_port(), free_port()
    keys = bench.work / "target-tls"
    command = [bench.watcher, "target", "--listen", f"127.0.0.1:{plain}", "--listen-tls", f"127.0.0.1:{secure}",
               "--tls-dir", keys]
    target = Process("target", command, bench.work, REST)
    try:
        wait_for("the target", target, lambda: answers(plain) and answers(secure))
        base = f"https://127.0.0.1:{secure}" if tls else f"http://127.0.0.1:{plain}"
        url, _ = prepared(bench, name, base, probes, str(INTERVAL))
        settings = {"WATCHER_IN_FLIGHT_MAX": str(2 * probes), "SSL_CERT_FILE": str(keys / "ca.pem")}
        with running(bench, "memory", ["agent"], url, **settings) as watcher:
            ready(watcher)
            # Every endpoint once, answered at once: what a process needs anyway is there.
            time.sleep(INTERVAL + 2)
            if watcher.metric("watcher_probe_failures_total"):
                raise Trouble(f"probes of the target fail; see {watcher.process.log}")
            idle, kernel = watcher.process.resident_bytes(), account.kernel_bytes()
            bench.database.sql(f"""update endpoints set url = url || '?latency={INTERVAL - 1}s',
                timeout_ms = {INTERVAL * 1_000}, settings = settings || '{{"http_version": "{version}"}}'""", name)
            best = {"in_flight": 0}
            for _ in range(2 * INTERVAL):
                time.sleep(0.5)
                in_flight = watcher.metric("watcher_probes_in_flight")
                if in_flight > best["in_flight"]:
                    best = {"in_flight": in_flight, "resident": watcher.process.resident_bytes(),
                            "kernel": account.kernel_bytes()}
            in_flight = best["in_flight"]
            if in_flight < probes * 0.9:
                raise Trouble(f"{in_flight:.0f} of {probes} probes were in flight at once; see {watcher.process.log}")
            return {
                "in_flight": in_flight, "idle_mb": idle / 1e6,
                "probe_bytes": (best["resident"] - idle) / in_flight,
                "probe_kernel_bytes": (best["kernel"] - kernel) / in_flight,
                "down": watcher.metric("watcher_probe_failures_total"),
            }
    finally:
        target.stop()
