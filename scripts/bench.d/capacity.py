"""One agent at shares of what the bare loop does on its core, and how soon a fall of the load is felt."""

import time

from measure import INTERVAL
from world import Trouble

# What is asked of a share: the agent's own bound goes before the descriptors'.
MORE = ("--in-flight-max", "4000")
# An overload is what it is after this; each second of it is as many rows as two cores could probe.
OVERLOAD_S = 60
# So long after the fall it is looked for late ticks.
WATCHED_S = 20
CALM_US = 10_000


def at_share(bench, share, seconds=None, extra=MORE, then=None):
    """The agent at a share of the floor's rate, as the floor itself is now; and what share it was of the floor before and
    after, since a machine may be another one minutes later."""
    # It is the same after ten seconds, however long the agent is held at it.
    before = bench.floor("max", seconds=10)["rate"]
    result = bench.agent(int(before * share), seconds=seconds, extra=extra, then=then)
    after = bench.floor("max", seconds=10)["rate"]
    return result | {"floor_rate": before, "floor_rate_after": after, "share": 2 * result["rate_asked"] / (before + after)}


def falls(bench, share, low):
    """At a share that is too much, until all endpoints but those of `low` are deleted at once."""
    seen = {}

    def fall(process, name):
        kept = low / share
        # The operator means it: the agent is not to wait for second thoughts.
        bench.database.sql(f"delete from endpoints where id > {kept} * (select max(id) from endpoints)", name)
        # From the commit on: what the triggers do with so many rows takes seconds.
        fell_at = bench.database.sql("select extract(epoch from clock_timestamp())", name)
        time.sleep(WATCHED_S + INTERVAL)
        process.must_run()
        seen.update(recovery(bench, name, fell_at))

    extra = (*MORE, "--mass-removal-grace", "0")
    result = at_share(bench, share, min(bench.seconds, OVERLOAD_S), extra, fall)
    return result | seen


def recovery(bench, name, fell_at):
    """From when on the ticks of a whole interval are all probed, and the 99th of a hundred is in time."""
    since = f"""from metrics m join endpoints e on e.id = m.endpoint_id
        where m.time < to_timestamp({fell_at} + {WATCHED_S}) and m.time >= to_timestamp({fell_at}"""
    rows = bench.database.sql(f"""
        select floor((extract(epoch from m.time) - {fell_at}) * 10), count(*), count(*) filter (where m.lag_us > {CALM_US}),
            count(*) filter (where m.outcome = 'skipped') {since}) group by 1""", name).splitlines()
    tenths = {int(tenth): tuple(map(int, counts)) for tenth, *counts in (row.split("|") for row in rows)}
    for tenth in range((WATCHED_S - INTERVAL) * 10):
        probed, late, skipped = map(sum, zip(*(tenths.get(at, (0, 0, 0)) for at in range(tenth, tenth + INTERVAL * 10))))
        if probed and late * 100 <= probed and not skipped:
            lag = bench.database.sql(
                f"select percentile_disc(0.99) within group (order by lag_us) {since} + {tenth / 10})", name)
            return {"recovered_s": tenth / 10, "calm_lag_p99_us": int(lag)}
    raise Trouble(f"{WATCHED_S} s after the load fell to a part, ticks are late or skipped: {tenths}")
