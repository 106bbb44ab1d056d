"""1 000 000 endpoints on one node: memory, load, what a change costs, what looking for one costs."""

import datetime
import http.server
import re
import statistics
import threading
import time

import account
from agents import ALL_CORES, prepared, ready, running
from world import Trouble

ENDPOINTS = 1_000_000
INTERVAL = "60..300"
SINGLE_CHANGES = 10
MANY = 1_000
# From a change on, all that it costs is spent within this.
WINDOW_S = 2
CHANGED = re.compile(r"(\S+Z) .*endpoints changed.* changed=(\d+)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def million(bench, endpoints=ENDPOINTS):
    name = "bench_million"
    base = f"http://{bench.address(False)}"
    settings = {"WATCHER_IN_FLIGHT_MAX": "10000"}
    url, _ = prepared(bench, name, base, 0, INTERVAL)
    with running(bench, "million-empty", ["up", "--processes", "2"], url, ALL_CORES, **settings) as watcher:
        ready(watcher)
        time.sleep(3)
        empty = resident(watcher)
    url, insert_s = prepared(bench, name, base, endpoints, INTERVAL, "--regex", bench.nginx.PATTERN)
    bench.database.sql("checkpoint", name)
    figures = {"endpoints": endpoints, "insert_s": insert_s}
    begun = time.monotonic()
    with running(bench, "million", ["up", "--processes", "2"], url, ALL_CORES, **settings) as watcher:
        process = watcher.process

        def loaded():
            process.must_run()
            try:
                return watcher.is_ready() and watcher.metric("watcher_endpoints") >= endpoints
            except OSError:
                return False

        if account.until(loaded, 300, 0.1) is None:
            raise Trouble(f"{endpoints} endpoints are not loaded after 300 s; see {process.log}")
        figures["load_s"] = time.monotonic() - begun
        agents = account.children(process.child.pid)
        figures["load_cpu_s"] = sum(sum(account.threads_us(pid).values()) for pid in agents) / 1e6
        figures["peak_bytes"] = (sum(account.memory(pid, "VmHWM") for pid in agents) - empty) / endpoints
        time.sleep(5)
        figures["loaded_bytes"] = (resident(watcher) - empty) / endpoints
        # A minute of probing later the buffers are as full as they get: the samples of the last minute are kept.
        time.sleep(max(0, 60 - bench.seconds))
        probes, at = watcher.metric("watcher_probes_total"), time.monotonic()
        cpu = [account.threads_us(pid) for pid in agents]
        time.sleep(bench.seconds)
        figures["rate"] = (watcher.metric("watcher_probes_total") - probes) / (time.monotonic() - at)
        spent = [sum(account.threads_us(pid).values()) - sum(one.values()) for pid, one in zip(agents, cpu)]
        figures["probe_us"] = sum(spent) / bench.seconds / figures["rate"]
        figures["endpoint_bytes"] = (resident(watcher) - empty) / endpoints
        figures |= changes(bench, name, watcher, agents, endpoints)
        figures["skipped"] = watcher.metric("watcher_probes_skipped_total")
        figures["late_changes"] = float(bench.database.sql("select count(*) from endpoint_gaps", name))
    figures |= polls(bench, name, url)
    return figures


def resident(watcher):
    return sum(account.memory(pid) for pid in account.children(watcher.process.child.pid))


def changes(bench, name, watcher, agents, endpoints):
    """One changed row, again and again, and a thousand at once; beside as many windows without a change."""
    arrivals = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), answer_noting(arrivals))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"

    def spent(change):
        before = [account.threads_us(pid).get("keeper", 0) for pid in agents]
        server_before, until = account.server_us(bench.database, name), time.monotonic() + WINDOW_S
        asked = changed(bench, name, watcher, change) if change else None
        time.sleep(max(0, until - time.monotonic()))
        keepers = sum(account.threads_us(pid).get("keeper", 0) - one for pid, one in zip(agents, before))
        catalog = account.spent_us(server_before, account.server_us(bench.database, name)).get("catalog", 0)
        return asked, keepers, catalog

    try:
        one, none, first_request = [], [], []
        for at in range(SINGLE_CHANGES):
            none.append(spent(None))
            identity = 1 + at * (endpoints // SINGLE_CHANGES) + at % 2
            changed_at = time.time()
            one.append(spent(f"update endpoints set url = '{base}/{identity}', interval_s = 5 where id = {identity}"))
            # Its next tick comes within its interval of 5 s: nothing but that proves that it is probed as it is now.
            if account.until(lambda: str(identity) in arrivals, 10) is None:
                raise Trouble(f"endpoint {identity} was changed and is not probed after 10 s; see {watcher.process.log}")
            first_request.append(arrivals[str(identity)] - changed_at)
        many = [spent(f"update endpoints set degraded_after_ms = {at} where id between {at * MANY} and {at * MANY + MANY - 1}")
                for at in range(1, 4)]
    finally:
        server.shutdown()
    middle = statistics.median
    quiet = middle(keepers for _, keepers, _ in none)
    quiet_server = middle(catalog for _, _, catalog in none)
    return {
        "change_s": middle(asked for asked, _, _ in one), "change_s_max": max(asked for asked, _, _ in one),
        "change_request_s": max(first_request),
        "change_cpu_ms": (middle(keepers for _, keepers, _ in one) - quiet) / 1e3,
        "change_cpu_ms_noise": (max(keepers for _, keepers, _ in none) - min(keepers for _, keepers, _ in none)) / 1e3,
        "change_server_ms": (middle(catalog for _, _, catalog in one) - quiet_server) / 1e3,
        "many_s": middle(asked for asked, _, _ in many),
        "many_cpu_ms": (middle(keepers for _, keepers, _ in many) - quiet) / 1e3,
        "many_server_ms": (middle(catalog for _, _, catalog in many) - quiet_server) / 1e3,
    }


def changed(bench, name, watcher, statement):
    """Runs it; seconds from the statement's end, so before its commit, until every agent concerned has said that it
    knows all its rows."""
    log = watcher.process.log
    seen = log.stat().st_size
    rows, ended = bench.database.sql(f"""with changed as ({statement} returning 1)
        select count(*), extract(epoch from clock_timestamp()) from changed""", name).split("|")
    rows = int(rows)
    heard = []

    def all_heard():
        text = COLOURS.sub("", log.read_text(errors="replace")[seen:])
        heard[:] = [(stamp, int(count)) for stamp, count in CHANGED.findall(text)]
        return sum(count for _, count in heard) >= rows

    if account.until(all_heard, 30) is None:
        raise Trouble(f"{rows} changed rows were not heard of within 30 s; see {log}")
    last = max(datetime.datetime.fromisoformat(stamp).timestamp() for stamp, _ in heard)
    return last - float(ended)


def answer_noting(arrivals):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            arrivals.setdefault(self.path.strip("/"), time.time())
            body = b"you are welcome"
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Answer


def polls(bench, name, url, every_ms=20):
    """An agent whose share is next to nothing looks 50 times a second, and does little else."""
    arguments = ["agent", "--partition", "0/65536", "--catalog-poll", f"{every_ms}ms"]
    with running(bench, "million-poll", arguments, url) as watcher:
        ready(watcher)
        time.sleep(1)
        pid = watcher.process.child.pid
        agent, server = account.threads_us(pid)["keeper"], account.server_us(bench.database, name)
        begun = time.monotonic()
        time.sleep(5)
        count = (time.monotonic() - begun) * 1_000 / every_ms
        agent = account.threads_us(pid)["keeper"] - agent
        catalog = account.spent_us(server, account.server_us(bench.database, name)).get("catalog", 0)
    return {"poll_us": agent / count, "poll_server_us": catalog / count}
