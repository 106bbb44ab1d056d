"""scripts/bench --accuracy, once everything that it needs is there: plans, runs, prints. See that script."""

import argparse
import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

import accuracy_bars
import accuracy_report
import truth
import world
from far import FAR, Far
from measure import probes
from world import MEASURED, Database, Process, Trouble, answers, free_port, get, wait_for

INTERVAL = 5
# What is asked of the server, by phase. A kind without the first three has the last two alone.
DELAYS_US = {"resolve": 3_000, "connect": 4_000, "tls": 6_000, "first": 20_000, "transfer": 5_000}
KINDS = {
    "plain": (),
    "resolve": ("resolve",),
    "connect": ("connect",),
    "tls": ("tls",),
    "phases": ("resolve", "connect", "tls"),
}
DEFAULT = ("plain", "phases"), (10, 50, 80, 95, 110)
GATED = ("plain",), (50, 80, 95)
# From where the search for a full core sets out, probes/s: more than most machines can do.
GUESS = {"plain": 7_000, "resolve": 5_000, "connect": 6_000, "tls": 3_000, "phases": 2_500}
# So busy, the core is full enough.
FULL = 0.9
# Unicode's word boundaries on text that is not ASCII keep the fast engines away, and no literal is there to be looked for:
# work for the probe thread (so little of it is not given to the match thread).
PATTERN = r"\b[a-z]{9,11}\b"
WORDS = "the quick brown fox jumps over 13 lazy dogs, and you are welcome to look on, señor; "
HIT = "until tomorrow, welcomehere"
WORK_US = 100
BAD_ABOVE_US = 2_000


def main():
    asked = arguments()
    # The truth has its core before the database.
    database = Database(asked.timescaledb, nice=19)
    database.start()
    far = Far(asked.work)
    try:
        bench = Accuracy(asked, database, far)
        turns = [[] for _ in bench.turns]
        for kind in asked.only:
            # In turns: what drifts on a machine drifts for all.
            for at, watcher in enumerate(bench.turns):
                turns[at].append(bench.kind(kind, watcher))
    finally:
        far.close()
        database.stop()
    facts = world.machine() | {"seconds": asked.seconds, "work_us": bench.work_us, "delays_us": DELAYS_US}
    results = turns[len(turns) // 2]
    said, failed = accuracy_report.text(facts, results), []
    if asked.gate:
        table, failed = accuracy_report.gate(turns)
        said += "\n\n" + table
    else:
        said += "\n\n" + "\n".join(accuracy_bars.lines(results))
    print(said)
    if asked.report:
        asked.report.write_text(said + "\n")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": facts, "results": results, "failed": failed}, indent=1) + "\n")
    return 1 if failed else 0


def arguments():
    names = lambda text: text.split(",")  # noqa: E731
    arguments = argparse.ArgumentParser(prog="scripts/bench --accuracy")
    arguments.add_argument("--accuracy", action="store_true")
    arguments.add_argument("--only", type=names, help=f"kinds, of {', '.join(KINDS)}")
    arguments.add_argument("--loads", type=names, help="percent of what a full core does")
    arguments.add_argument("--seconds", type=int, default=8, help="at each load")
    arguments.add_argument("--agent", type=shlex.split, default=[], help="more arguments for the agent")
    arguments.add_argument("--gate", action="store_true", help="exit 1 when it is worse than the base beyond the noise")
    arguments.add_argument("--base", type=pathlib.Path, help="a tree to compare with, which scripts/bench has built")
    arguments.add_argument("--report", type=pathlib.Path)
    arguments.add_argument("--json", type=pathlib.Path)
    arguments.add_argument("--work", type=pathlib.Path)
    arguments.add_argument("--peers", type=pathlib.Path)
    arguments.add_argument("--timescaledb", type=pathlib.Path)
    asked = arguments.parse_args()
    default = GATED if asked.gate else DEFAULT
    asked.only, asked.loads = asked.only or default[0], asked.loads or default[1]
    unknown = [kind for kind in asked.only if kind not in KINDS]
    if unknown:
        arguments.error(f"no kind {', '.join(unknown)}; there are: {', '.join(KINDS)}")
    try:
        asked.loads = [int(load) for load in asked.loads]
    except ValueError:
        arguments.error("--loads are percentages, comma-separated")
    if asked.seconds < 1 or min(asked.loads) < 1:
        arguments.error("--seconds and --loads are at least 1")
    return asked


class Accuracy:
    """The world that the runs share."""

    def __init__(self, asked, database, far):
        self.asked, self.work, self.database, self.far = asked, asked.work, database, far
        self.truth, watcher, base = os.environ["TRUTH_BIN"], os.environ["WATCHER_BIN"], os.environ.get("WATCHER_BASE_BIN")
        # The base before and after, so that its own two runs tell the noise.
        self.turns = ([base, watcher, base] if base else [watcher, watcher]) if asked.gate else [watcher]
        # By kind: what a calm client saw, and probes/s of a full core; found once, the same for all.
        self.known = {}
        self.root = asked.work / "truth"
        self.root.mkdir(parents=True, exist_ok=True)
        self.ca = world.certificates(self.root, f"DNS:*.truth.test,IP:127.0.0.1,IP:{FAR}")
        self.body = asked.work / "truth.body"
        self.work_us = self.set_work()

    def set_work(self):
        """A body that takes the pattern so long on this machine."""
        size, took = 2_000, 0.0
        for _ in range(4):
            words = (WORDS * (size // len(WORDS) + 1))[: size - len(HIT)]
            self.body.write_text(words + HIT, encoding="utf-8")
            command = ["taskset", "-c", str(min(MEASURED)), self.truth, "--work", PATTERN, "--body", self.body]
            took = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if abs(took - WORK_US) < WORK_US / 20:
                return took
            size = max(100, int(size * WORK_US / took))
            if size > 7_000:
                raise Trouble(f"the pattern takes {took} us on {size} bytes: too little for a body that is judged in place")
        return took

    def kind(self, kind, watcher):
        """All loads of a kind, and what a calm client sees of it."""
        parts = KINDS[kind]
        if missing := self.far.missing(parts):
            print(f"{kind}: not here: {missing}", file=sys.stderr, flush=True)
            return {"kind": kind, "missing": missing}
        if kind not in self.known:
            self.known[kind] = self.full(kind, watcher)
        known, loads = self.known[kind], []
        for load in self.asked.loads:
            rate = max(1, int(known["full_rate"] * load / 100))
            loads.append({"load": load} | self.run(watcher, kind, rate, self.asked.seconds, known["handshake_us"]))
            print(f"{kind}: {accuracy_report.line(loads[-1])}", file=sys.stderr, flush=True)
        return {"kind": kind, "loads": loads} | known

    def full(self, kind, watcher):
        """What a calm client sees, and where the core is full: the busier an agent, the cheaper its probes."""
        calm = self.calm(kind)
        # The least that it takes: so the error is not told too small.
        handshake_us = calm["handshake_us"]["min"] if calm["handshake_us"] else 0.0
        rate, found = GUESS[kind], None
        for _ in range(3):
            found = self.run(watcher, kind, int(rate), 3, handshake_us)
            rate = 1e6 / found["us"]
            if found["core"] > FULL:
                break
        return calm | {"handshake_us": handshake_us, "full_rate": rate}

    @contextlib.contextmanager
    def served(self, kind):
        """The truth servers with the delays of a kind: an address, and the logs that will be there."""
        parts, logs = KINDS[kind], [self.work / "truth.log"]
        plain, tls = (f"{self.far.address(parts)}:{free_port()}" for _ in range(2))
        command = [self.truth, "--serve", "--plain", plain, "--tls", tls, "--cert", self.root / "server.pem", "--key",
                   self.root / "server.key", "--body", self.body, "--log", logs[0]]
        for part in (*parts, "first", "transfer"):
            command += [f"--{part}-us", DELAYS_US[part]]
        command += self.far.flags(parts)
        servers = [Process("truth", command, self.work, prompt=50)]
        if "connect" in parts:
            logs.append(self.work / "syn.log")
            command = [self.truth, "--serve", "--syns", "--connect-us", DELAYS_US["connect"], "--log", logs[1]]
            servers.append(Process("syn", command, self.work, stdin=self.far.syns, prompt=60))
        try:
            wait_for("the truth server", servers[0], lambda: answers(int(plain.split(":")[1]), self.far.address(parts)))
            yield tls if "tls" in parts else plain, logs
            for server in servers:
                server.must_run()
        finally:
            for server in servers:
                server.stop()

    def calm(self, kind):
        with self.served(kind) as (address, logs):
            command = ["taskset", "-c", str(min(MEASURED)), self.truth, "--client", "--address", address]
            command += ["--ca", self.ca, "--name", "e1.truth.test"] if "tls" in KINDS[kind] else []
            said = []
            for first, more in ((1, []), (1_001, ["--sleep"])):
                done = subprocess.run([*command, "--first", str(first), "--count", "100", *more], capture_output=True,
                                      text=True, check=False)
                if done.returncode:
                    raise Trouble(f"the calm client: {done.stderr}")
                said.append(done.stdout)
        log = truth.Log(logs)
        spinning, sleeping = (truth.calm(log, lines) for lines in said)
        return spinning | {"asleep": sleeping["floor"]}

    def run(self, watcher, kind, rate, seconds, handshake_us):
        """One agent with so many probes a second; its rows against the truth."""
        name, parts = "bench_accuracy", KINDS[kind]
        url = self.database.fresh(name)
        with self.served(kind) as (address, logs):
            env = {k: v for k, v in os.environ.items() if not k.startswith(("WATCHER_", "PG"))} | {"DATABASE_URL": url}
            subprocess.run([watcher, "migrate"], env=env, check=True, capture_output=True)
            self.endpoints(name, parts, address, rate * INTERVAL)
            listen = f"127.0.0.1:{free_port()}"
            env |= {"WATCHER_LISTEN": listen, "SSL_CERT_FILE": str(self.ca)}
            command = [watcher, "agent", "--partition", "0/1", *self.asked.agent]
            agent = Process("agent", command, self.work, MEASURED, env)
            look = lambda: (sum(agent.cpu()), busy(), probes(get(f"http://{listen}/metrics")), time.time())  # noqa: E731
            try:
                wait_for("the agent", agent, lambda: get(f"http://{listen}/ready") is not None)
                # Every endpoint once.
                time.sleep(INTERVAL + 1)
                before = look()
                time.sleep(seconds)
                after = look()
                # What is under way ends, and is stored.
                time.sleep(1)
                agent.must_run()
            finally:
                code = agent.stop()
            if code:
                raise Trouble(f"the agent ended with {code}; see {agent.log}")
        used, core, made, window = (now - then for now, then in zip(after, before))
        rows = truth.rows(self.database, name, before[-1], after[-1])
        found = truth.judge(truth.Log(logs), rows, handshake_us, BAD_ABOVE_US, INTERVAL * 1_000_000)
        return {"asked": rate, "rate": made / window, "us": used / max(1, made), "core": core / window} | found

    def endpoints(self, name, parts, address, count):
        scheme = "https" if "tls" in parts else "http"
        host = f"'e' || n || '.truth.test:{address.split(':')[1]}'" if "resolve" in parts else f"'{address}'"
        settings = '{"dns": "fresh", "ip_family": "4"}' if "resolve" in parts else "{}"
        self.database.sql(f"""
            insert into endpoints (url, interval_s, regex, settings)
            select '{scheme}://' || {host} || '/e/' || n, {INTERVAL}, '{PATTERN}', '{settings}'
            from generate_series(1, {count}) n""", name)


def busy():
    """Seconds for which the measured core has not been idle."""
    with open("/proc/stat", encoding="ascii") as stat:
        fields = next(line for line in stat if line.startswith(f"cpu{min(MEASURED)} ")).split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / world.TICK


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Trouble as trouble:
        print(f"bench: {trouble}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
