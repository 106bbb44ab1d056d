"""The database's share: CPU of server and agent per stored row, and one keeper beside `psql \\copy`."""

import os
import pathlib
import re
import statistics
import subprocess
import time

import account
from agents import prepared, ready, running
from measure import INTERVAL
from world import MEASURED, Process, Trouble

ROWS = 500_000
TURNS = 5
SOURCES = pathlib.Path(__file__).parents[2]
KEEPER_LINE = re.compile(r"keeper: (\d+) rows in ([\d.]+) s \((\d+)/s\), ([\d.]+) us")
TIMING = re.compile(r"Time: ([\d.]+) ms")


def share(bench, rate):
    """One agent at `rate` probes a second: who spends what on a row, of all that a probe costs."""
    name = "bench_share"
    base = f"http://{bench.address(False)}"
    url, _ = prepared(bench, name, base, rate * INTERVAL, str(INTERVAL), "--regex", bench.nginx.PATTERN)
    with running(bench, "share", ["agent"], url, WATCHER_IN_FLIGHT_MAX="10000") as watcher:
        ready(watcher)
        # Every endpoint once, and the pages of the table's first rows written.
        time.sleep(INTERVAL + 3)
        pid = watcher.process.child.pid

        def look():
            watcher.process.must_run()
            rows = watcher.metric("watcher_samples_stored_total")
            return rows, account.threads_us(pid), account.server_us(bench.database, name)

        (rows, threads, server) = look()
        time.sleep(max(bench.seconds, 5))
        (rows_after, threads_after, server_after) = look()
    done = rows_after - rows
    if done <= 0:
        raise Trouble(f"no row was stored; see {watcher.process.log}")
    spent = account.spent_us(server, server_after)
    agent = sum(threads_after.values()) - sum(threads.values())
    figures = {
        "rows": done, "agent_us": agent / done,
        "keeper_us": (threads_after["keeper"] - threads["keeper"]) / done,
    }
    if server_after:
        clients = sum(us for kind, us in spent.items() if kind in ("client", "catalog"))
        others = sum(us for kind, us in spent.items() if kind not in ("client", "catalog", "other client"))
        figures |= {"server_us": clients / done, "server_other_us": others / done}
        figures["share_percent"] = 100 * (clients + others) / (clients + others + agent)
    return figures


def keeper(bench, rows=ROWS, *more):
    """The same rows into the same emptied table: by the real keeper, and by `psql \\copy` as text and as binary, before it
    and after it. A ratio is of one turn, since a shared machine's speed changes within a minute; told is the median one."""
    name = "bench_keeper"
    url, _ = prepared(bench, name, "http://unused.invalid", 0, "60")
    url += "?sslmode=disable"
    columns = re.search(r"\(([^)]*)\)", (SOURCES / "src/store/timescale/copy.sql").read_text())[1]
    columns = " ".join(columns.split())
    files = {form: bench.work / f"rows.{form}" for form in ("text", "binary")}
    ratios, rates = {form: [] for form in files}, {form: [] for form in files}
    rates["keeper"], agent_us = [], []

    def copied():
        """Rows a second of psql, by form."""
        taken = {}
        for form, file in files.items():
            emptied(bench, name)
            taken[form] = rows / copy(bench, name, f"\\copy metrics ({columns}) from pstdin (format {form})", file)
            rates[form].append(taken[form])
        return taken

    try:
        # What psql copies is what a keeper has written.
        kept(bench, name, url, rows, *more)
        for form, file in files.items():
            copy(bench, name, f"\\copy (select {columns} from metrics) to pstdout (format {form})", into=file)
        before = copied()
        for _ in range(TURNS):
            rate, us = kept(bench, name, url, rows, *more)
            rates["keeper"].append(rate)
            agent_us.append(us)
            after = copied()
            for form, found in ratios.items():
                found.append(2 * rate / (before[form] + after[form]))
            before = after
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)
    figures = {f"{key}_rows_s": statistics.median(found) for key, found in rates.items()}
    for form, found in ratios.items():
        figures |= {f"to_{form}": statistics.median(found), f"to_{form}_min": min(found), f"to_{form}_max": max(found)}
    return figures | {"rows": rows, "keeper_us": statistics.median(agent_us)}


def kept(bench, name, url, rows, *more):
    """One keeper into the emptied table: rows a second, and its own CPU a row."""
    emptied(bench, name)
    command = [os.environ["KEEPER_BIN"], "--url", url, "--rows", rows, *more]
    process = Process("keeper", command, bench.work, MEASURED)
    process.child.wait(120)
    found = KEEPER_LINE.search(process.log.read_text())
    if not found:
        process.must_run()
        raise Trouble(f"the keeper said nothing; see {process.log}")
    return int(found[1]) / float(found[2]), float(found[4])


def emptied(bench, name):
    bench.database.sql("truncate metrics", name)
    bench.database.sql("checkpoint", name)


def copy(bench, name, command, source=None, into=None):
    """Seconds that psql took, by its own clock."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    env |= {"WATCHER_TIMESCALEDB_DATABASE": name, "PGSSLMODE": "disable"}
    arguments = [bench.database.script, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"]
    arguments += [] if into else ["-c", "\\timing on"]
    with open(source or os.devnull, "rb") as given, open(into or os.devnull, "wb") as taken:
        done = subprocess.run([*arguments, "-c", command], stdin=given, env=env, check=False, stderr=subprocess.PIPE,
                              stdout=taken if into else subprocess.PIPE,
                              preexec_fn=lambda: os.sched_setaffinity(0, MEASURED))
    if done.returncode:
        raise Trouble(f"psql: {done.stderr.decode(errors='replace').strip()}\n{command}")
    if into:
        return 0.0
    found = TIMING.search(done.stdout.decode())
    if not found:
        raise Trouble(f"psql told no time for {command}")
    return float(found[1]) / 1_000
