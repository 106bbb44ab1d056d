"""scripts/bench, once everything that it needs is there: plans, runs, prints. See that script for what it does."""

import argparse
import itertools
import json
import pathlib
import statistics
import sys
import time

import capacity
import figures
import report
import world
from measure import Bench
from world import Database, Nginx, Trouble

# Name, what it is, what runs. The floor of a group is driven at the same rate in the same run, just before.
TLS_RATE, KEEP_RATE = 1_000, 2_000
PLAN = [
    ("plain-2000", "1 KiB, new connection", "floor", lambda b: b.floor(2_000)),
    ("plain-2000", "1 KiB, new connection", "agent", lambda b: b.agent(2_000)),
    ("plain-5000", "1 KiB, new connection", "floor", lambda b: b.floor(5_000)),
    ("plain-5000", "1 KiB, new connection", "agent", lambda b: b.agent(5_000)),
    ("64k", "64 KiB, new connection", "floor", lambda b: b.floor(2_000, "/64k/e/1")),
    ("64k", "64 KiB, new connection", "agent", lambda b: b.agent(2_000, "/64k")),
    ("tls", "1 KiB, full verified handshake", "floor", lambda b: b.floor(TLS_RATE, tls=True)),
    ("tls", "1 KiB, full verified handshake", "agent", lambda b: b.agent(TLS_RATE, tls=True)),
    ("keep-alive", "1 KiB, kept connections", "floor", lambda b: b.floor(KEEP_RATE, keep_alive=True)),
    ("keep-alive", "1 KiB, kept connections", "agent", lambda b: b.agent(KEEP_RATE, keep_alive=True)),
    ("peers", "1 KiB, new connection", "agent", lambda b: b.agent(1_000)),
    ("peers", "1 KiB, new connection", "aiohttp + asyncpg", lambda b: b.aiohttp(1_000)),
    ("peers", "1 KiB, new connection", "blackbox_exporter", lambda b: b.blackbox(1_000)),
    ("peers", "1 KiB, new connection", "Prometheus + blackbox_exporter", lambda b: b.prometheus(500)),
    ("capacity", "1 KiB, new connection, as fast as it goes", "floor", lambda b: b.floor("max", seconds=10)),
    ("capacity", "1 KiB, new connection, 0.65 x the floor's rate", "agent", lambda b: capacity.at_share(b, 0.65)),
    ("capacity", "1 KiB, new connection, 2 x what the core can do, then 0.3 x", "agent", lambda b: capacity.falls(b, 2.0, 0.3)),
]
NAMES = list(dict.fromkeys(name for name, *_ in PLAN)) + figures.NAMES
SHORT = list(dict.fromkeys(name for name, *_ in PLAN if name != "capacity"))


def main():
    arguments = argparse.ArgumentParser(prog="scripts/bench")
    arguments.add_argument("--only", default=",".join(SHORT), help="names, comma-separated; --list tells them")
    arguments.add_argument("--seconds", type=int, default=10)
    arguments.add_argument("--repeat", type=int, default=1)
    arguments.add_argument("--json", type=pathlib.Path)
    arguments.add_argument("--plot", type=pathlib.Path)
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--work", type=pathlib.Path)
    arguments.add_argument("--peers", type=pathlib.Path)
    arguments.add_argument("--timescaledb", type=pathlib.Path)
    asked = arguments.parse_args()
    if asked.list:
        print("\n".join(NAMES))
        return 0
    wanted = asked.only.split(",")
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        arguments.error(f"no measurement {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    if asked.seconds < 1 or asked.repeat < 1:
        arguments.error("--seconds and --repeat are at least 1")

    database = Database(asked.timescaledb)
    own = asked.peers / "nginx" / "usr" / "sbin" / "nginx"
    nginx = None
    database.start()
    try:
        nginx = Nginx(own if own.exists() else "nginx", asked.work)
        bench = Bench(asked.work, asked.peers, database, nginx, asked.seconds)
        results = run(bench, [step for step in PLAN if step[0] in wanted], asked.repeat)
        figured = figures.run(bench, wanted, asked.repeat)
    finally:
        if nginx:
            nginx.process.stop()
        database.stop()
    facts = world.machine() | {"seconds": asked.seconds, "repeat": asked.repeat}
    if results:
        print(report.table(facts, results))
    if figured:
        print(figures.table(facts, figured))
    if asked.json:
        asked.json.write_text(json.dumps({"machine": facts, "results": results, "figures": figured}, indent=1) + "\n")
    if asked.plot:
        report.plot(asked.plot, results, asked.peers / "python")
    return 0


def run(bench, plan, repeat):
    """All steps, then all again: what drifts on a machine drifts for all."""
    runs = [[] for _ in plan]
    for turn in range(repeat):
        said = f"run {turn + 1} of {repeat}"
        for _, group in itertools.groupby(range(len(plan)), key=lambda at: plan[at][0]):
            for at, result in compared(bench, plan, list(group), said):
                if result is not None:
                    runs[at].append(result)
    return [
        {"name": name, "what": what, "who": who} | middle(taken)
        for (name, what, who, _), taken in zip(plan, runs) if taken
    ]


def compared(bench, plan, group, said):
    """One turn of a group, and what each costs beside its first. A floor is taken before the others and after them:
    a shared machine can be half as fast from one half minute to the next."""
    first, *others = group
    base = measured(bench, plan[first], said)
    results = [(at, measured(bench, plan[at], said)) for at in others]
    if plan[first][2] == "floor":
        after = measured(bench, plan[first], said)
        base = {key: statistics.mean((base[key], after[key])) for key in base}
    for at, result in results:
        if result is not None:
            result["ratio"] = result["us"] / base["us"]
    return [(first, base), *results]


def measured(bench, step, said):
    name, _, who, measure = step
    begun = time.monotonic()
    result = measure(bench)
    found = "not here" if result is None else f"{result['us']:.1f} us, {result['rate']:.0f}/s"
    print(f"{name}: {who}: {found} ({time.monotonic() - begun:.0f} s, {said})", file=sys.stderr, flush=True)
    return result


def middle(taken):
    """The median of each figure, and the spread of the cost and of what it is beside another's in the same run."""
    keys = [key for key in taken[0] if all(key in one for one in taken)]
    merged = {key: statistics.median(one[key] for one in taken) for key in keys} | {"runs": len(taken)}
    for key in ("us", "ratio"):
        if key in merged:
            spread = [one[key] for one in taken]
            merged |= {f"{key}_min": min(spread), f"{key}_max": max(spread)}
    return merged


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Trouble as trouble:
        print(f"bench: {trouble}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
