"""The measurements. Each returns a dictionary: us, user_us, sys_us (CPU per probe), rate, rss, and what else it saw."""

import os
import pathlib
import re
import subprocess
import time

from world import MEASURED, REST, Process, Stolen, Trouble, audit, free_port, get, wait_for

INTERVAL = 5
FLOOR_LINE = re.compile(r"floor: (\d+) requests in ([\d.]+) s \((\d+)/s\), (\d+) failed, ([\d.]+) us")


class Bench:
    """The world that the measurements share."""

    def __init__(self, work, peers, database, nginx, seconds):
        self.work, self.peers, self.database, self.nginx, self.seconds = work, peers, database, nginx, seconds
        # Twice, before the others of its group and after them.
        self.floor_seconds = max(seconds // 2, 2)
        self.watcher, self.floor_binary = os.environ["WATCHER_BIN"], os.environ["FLOOR_BIN"]

    def address(self, tls):
        return f"127.0.0.1:{self.nginx.tls if tls else self.nginx.plain}"

    def over(self, processes, count):
        """CPU of these processes per thing counted, over the bench's seconds."""
        for process in processes:
            process.must_run()
        stolen = Stolen()
        before, counted, at = [process.cpu() for process in processes], count(), time.monotonic()
        time.sleep(self.seconds)
        after, counted_after, until = [process.cpu() for process in processes], count(), time.monotonic()
        for process in processes:
            process.must_run()
        done = counted_after - counted
        if done <= 0:
            raise Trouble(f"{processes[0].name} did nothing in {self.seconds} s; see {processes[0].log}")
        user, system = (sum(b[i] - a[i] for a, b in zip(before, after)) / done for i in (0, 1))
        return {
            "us": user + system, "user_us": user, "sys_us": system, "rate": done / (until - at), "count": done,
            "rss": sum(process.resident_bytes() for process in processes), "stolen": stolen.percent(),
        }

    def floor(self, rate, path="/e/1", tls=False, keep_alive=False, seconds=None):
        """The bare loop. Its whole run is counted: it does nothing else."""
        seconds = seconds or self.floor_seconds
        command = [self.floor_binary, "--address", self.address(tls), "--path", path, "--rate", str(rate),
                   "--seconds", str(seconds)]
        command += ["--tls", str(self.nginx.ca)] if tls else []
        command += ["--keep-alive"] if keep_alive else []
        stolen = Stolen()
        process = Process("floor", command, self.work, MEASURED)
        if process.child.wait(seconds + 60):
            raise Trouble(f"the floor ended with {process.child.returncode}; see {process.log}")
        found = FLOOR_LINE.search(process.log.read_text())
        if not found or int(found[4]) > int(found[1]) // 1000:
            raise Trouble(f"the floor's requests failed; see {process.log}")
        return {"us": float(found[5]), "rate": float(found[3]), "count": int(found[1]), "stolen": stolen.percent()}

    def agent(self, rate, path="", tls=False, keep_alive=False, seconds=None, extra=(), then=None):
        """One agent process with `rate` × 5 endpoints at 5 s, a pattern checked, rows stored. `then` is called before it is
        stopped, with its process and the name of its database."""
        name = "bench_agent"
        url = self.database.fresh(name)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("WATCHER_", "PG"))}
        env["DATABASE_URL"] = url
        scheme = "https" if tls else "http"
        base = f"{scheme}://{self.address(tls)}{path}"
        generate = ["endpoints", "generate", "--count", str(rate * INTERVAL), "--interval", str(INTERVAL),
                    "--base-url", base, "--regex", self.nginx.PATTERN]
        for command in (["migrate"], generate):
            subprocess.run([self.watcher, *command], env=env, check=True, capture_output=True)
        if keep_alive:
            self.database.sql("""update endpoints set settings = '{"connection": "reuse"}'""", name)
        listen = f"127.0.0.1:{free_port()}"
        env |= {"WATCHER_LISTEN": listen, "SSL_CERT_FILE": str(self.nginx.ca), "WATCHER_IN_FLIGHT_MAX": "10000"}
        process = Process("agent", [self.watcher, "agent", "--partition", "0/1", *extra], self.work, MEASURED, env)
        begun = time.monotonic()
        try:
            wait_for("the agent", process, lambda: get(f"http://{listen}/ready") is not None)
            # Every endpoint once: caches of addresses and patterns are warm then.
            time.sleep(INTERVAL + 1)
            if seconds:
                kept, self.seconds = self.seconds, seconds
            try:
                result = self.over([process], lambda: probes(get(f"http://{listen}/metrics")))
            finally:
                if seconds:
                    self.seconds = kept
            if then:
                then(process, name)
        finally:
            code = process.stop()
        if code:
            raise Trouble(f"the agent ended with {code}; see {process.log}")
        result["rate_asked"] = rate
        result |= self.stored(name, url, time.monotonic() - begun)
        return result

    def stored(self, name, url, since_s):
        row = self.database.sql("""
            select count(*), count(*) filter (where outcome = 'up'), count(*) filter (where outcome = 'down'),
                count(*) filter (where outcome = 'skipped'),
                percentile_cont(0.5) within group (order by lag_us)
                    filter (where outcome <> 'skipped' and time > t.begun + interval '6 s'),
                percentile_cont(0.99) within group (order by lag_us)
                    filter (where outcome <> 'skipped' and time > t.begun + interval '6 s'),
                percentile_cont(0.99) within group (order by duration_us)
                    filter (where outcome <> 'skipped' and time > t.begun + interval '6 s'),
                avg(cpu_us)
            from metrics, (select min(time) as begun from metrics) t""", name).split("|")
        keys = ("rows", "up", "down", "skipped", "lag_p50_us", "lag_p99_us", "duration_p99_us", "own_cpu_us")
        seen = {key: float(value or 0) for key, value in zip(keys, row)}
        judged = audit(self.watcher, url, int(since_s) + 60)
        seen |= {"missing": judged["missing"], "duplicates": judged["duplicates"]}
        return seen

    def aiohttp(self, rate, keep_alive=False):
        """aiohttp and asyncpg, the same endpoints, rows stored."""
        python = self.peers / "python" / "bin" / "python"
        if not python.exists():
            return None
        stored = self.work / "aiohttp.stored"
        stored.write_text("")
        command = [python, pathlib.Path(__file__).with_name("aiohttp_agent.py"), "--base-url",
                   f"http://{self.address(False)}", "--count", rate * INTERVAL, "--interval", INTERVAL, "--pattern",
                   self.nginx.PATTERN, "--database", self.database.fresh("bench_peer"), "--stored", stored]
        process = Process("aiohttp", command + (["--keep-alive"] if keep_alive else []), self.work, MEASURED)
        rows = lambda: sum(int(line) for line in stored.read_text().split())  # noqa: E731
        try:
            wait_for("the aiohttp agent", process, rows)
            time.sleep(INTERVAL + 1)
            return self.over([process], rows) | {"rate_asked": rate}
        finally:
            process.stop()

    def blackbox(self, rate):
        """blackbox_exporter alone, asked by the bare loop."""
        exporter = self.exporter()
        if exporter is None:
            return None
        process, port = exporter
        driver = None
        try:
            command = [self.floor_binary, "--address", f"127.0.0.1:{port}", "--path", self.ask(), "--rate", rate,
                       "--seconds", self.seconds + 4]
            driver = Process("blackbox-driver", command, self.work, REST)
            time.sleep(2)
            return self.over([process], self.nginx.requests) | {"rate_asked": rate}
        finally:
            if driver:
                driver.stop()
            process.stop()

    def prometheus(self, rate):
        """Prometheus with `rate` targets at 1 s each, by way of blackbox_exporter: both are counted."""
        binary = self.peers / "prometheus" / "usr" / "bin" / "prometheus"
        exporter = self.exporter() if binary.exists() else None
        if exporter is None:
            return None
        process, port = exporter
        own = free_port()
        config = self.work / "prometheus.yml"
        targets = ", ".join(f"'http://{self.address(False)}/e/{number}'" for number in range(1, rate + 1))
        config.write_text(f"""
scrape_configs:
  - job_name: bench
    scrape_interval: 1s
    scrape_timeout: 1s
    metrics_path: /probe
    params: {{ module: [bench] }}
    static_configs: [ {{ targets: [ {targets} ] }} ]
    relabel_configs:
      - {{ source_labels: [__address__], target_label: __param_target }}
      - {{ source_labels: [__param_target], target_label: instance }}
      - {{ target_label: __address__, replacement: '127.0.0.1:{port}' }}
""")
        data = self.work / "prometheus-data"
        subprocess.run(["rm", "-rf", data], check=True)
        command = [binary, f"--config.file={config}", f"--storage.tsdb.path={data}",
                   f"--web.listen-address=127.0.0.1:{own}", "--storage.tsdb.retention.time=1h"]
        server = Process("prometheus", command, self.work, MEASURED)
        try:
            wait_for("Prometheus", server, lambda: get(f"http://127.0.0.1:{own}/-/ready") is not None)
            time.sleep(4)
            return self.over([server, process], self.nginx.requests) | {"rate_asked": rate}
        finally:
            server.stop()
            process.stop()
            subprocess.run(["rm", "-rf", data], check=False)

    def ask(self):
        return f"/probe?module=bench&target=http://{self.address(False)}/e/1"

    def exporter(self):
        binary = self.peers / "prometheus-blackbox-exporter" / "usr" / "bin" / "prometheus-blackbox-exporter"
        if not binary.exists():
            return None
        config = self.work / "blackbox.yml"
        config.write_text(f"""
modules:
  bench:
    prober: http
    timeout: 5s
    http:
      preferred_ip_protocol: ip4
      fail_if_body_not_matches_regexp: ['{self.nginx.PATTERN}']
""")
        port = free_port()
        command = [binary, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
        process = Process("blackbox", command, self.work, MEASURED)
        wait_for("blackbox_exporter", process, lambda: "probe_success 1" in get(f"http://127.0.0.1:{port}{self.ask()}"))
        return process, port


def probes(text):
    """Probes made: those skipped cost nothing and count nothing."""
    lines = (line for line in text.splitlines() if line.startswith("watcher_probes_total{"))
    return sum(int(float(line.split()[-1])) for line in lines if 'outcome="skipped"' not in line)
