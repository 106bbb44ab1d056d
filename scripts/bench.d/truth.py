"""What really happened, by the truth server's log, and how far an agent's figures are from it.

The true time of a phase is what passed outside the agent: from the arrival of its question at the other side (the
kernel's stamp) to the instant at which the answer left there. The true duration is their sum, with the agent's own CPU
for the TLS handshake, which is part of TLS and measured apart. So all that lies between is the agent's error: its own
work before the connection and between the phases, its waiting for the core, and the few system calls that nobody can do
without (the floor, which a calm client shows).

An answer leaves within a write: on loopback the other side's kernel has it before the call returns. Errors are told by
the clock before the write, as large as they can be; a bound counts as broken only where the clock after it says so too.
"""

import bisect
import collections

PHASES = ("resolve", "connect", "tls", "processing", "transfer")
FIELDS = (*PHASES, "duration")
# Figures of the agent are whole microseconds, cut off: one is lost in the duration, one in the bound.
ROUNDING_US = 2

Http = collections.namedtuple("Http", "port hello flight flight_after request first first_after last last_after")
Late = collections.namedtuple("Late", "came sent sent_after")
# True times in µs by field; by how much the true duration may be longer.
True_ = collections.namedtuple("True_", "us slack_us request")


class Log:
    """The truth servers' logs of one run."""

    def __init__(self, paths):
        self.http, self.dns, self.syn = (collections.defaultdict(list) for _ in range(3))
        for path in paths:
            with open(path, encoding="ascii") as lines:
                for line in lines:
                    what, key, *stamps = line.split()
                    make = Http if what == "http" else Late
                    getattr(self, what)[int(key)].append(make(*map(int, stamps)))
        for found in self.http.values():
            found.sort(key=lambda one: one.request)

    def at(self, number, started_us, within_us):
        """The exchange of an endpoint whose request came after `started_us`, which is cut to a microsecond."""
        found = self.http.get(number, ())
        at = bisect.bisect_left(found, (started_us - 1) * 1000, key=lambda one: one.request)
        if at < len(found) and found[at].request < (started_us + within_us) * 1000:
            return found[at]
        return None

    def true(self, number, http, handshake_us=0.0):
        """The true times of an exchange."""
        us = dict.fromkeys(PHASES)
        us |= {"processing": http.first - http.request, "transfer": http.last - http.first, "connect": 0}
        slack = http.last_after - http.last
        for phase, late in (("resolve", self.before(self.dns.get(number), http.request)),
                            ("connect", self.before(self.syn.get(http.port), http.request))):
            if late:
                us[phase] = late.sent - late.came
                slack += late.sent_after - late.sent
        if http.hello:
            us["tls"] = http.flight - http.hello + handshake_us * 1000
            slack += http.flight_after - http.flight
        us["duration"] = sum(ns for ns in us.values() if ns is not None)
        return True_({key: ns / 1000 for key, ns in us.items() if ns is not None}, slack / 1000, http.request / 1000)

    @staticmethod
    def before(found, request):
        """The last one before a request: the one that led to it."""
        return next((late for late in reversed(found or ()) if late.sent <= request), None)


Row = collections.namedtuple(
    "Row", "number scheduled lag_us outcome reason resolve connect tls processing transfer duration error_us suspect cpu_us")
ROWS = """
    select substring(e.url from '/e/([0-9]+)$'), round(extract(epoch from m.time) * 1000000)::bigint, m.lag_us, m.outcome,
        m.reason, m.resolve_us, m.connect_us, m.tls_us, m.processing_us, m.transfer_us, m.duration_us, m.error_us,
        m.suspect::int, m.cpu_us
    from metrics m join endpoints e on e.id = m.endpoint_id
    where m.time >= to_timestamp({}) and m.time < to_timestamp({})"""


def rows(database, name, since, until):
    """The agent's rows of a window."""
    whole = lambda text: int(text) if text else None  # noqa: E731
    found = []
    for line in database.sql(ROWS.format(since, until), name).splitlines():
        number, scheduled, lag, outcome, reason, *rest = line.split("|")
        found.append(Row(int(number), int(scheduled), whole(lag), outcome, reason, *map(whole, rest)))
    return found


def share(values, part):
    """The value that this part of them does not exceed; of a sorted list."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else None


def spread(values):
    """How values lie; of none, nothing."""
    if not values:
        return None
    values = sorted(values)
    return {"n": len(values), "min": values[0], "p50": share(values, 0.5), "p99": share(values, 0.99),
            "p999": share(values, 0.999), "max": values[-1]}


def judge(log, found, handshake_us, bad_above_us, interval_us):
    """The figures of a run: rows against truth."""
    errors = {field: [] for field in FIELDS}
    count = collections.Counter()
    skipped, excess, slacks, lags, worst = collections.Counter(), [], [], [], []
    for row in found:
        if row.reason == "shutdown":
            # The end of the run cut it off: what an agent with too much to do had not come to.
            count["cut"] += 1
            continue
        count[row.outcome] += 1
        if row.outcome == "skipped":
            skipped[row.reason] += 1
        if row.duration is None or row.outcome == "skipped":
            continue
        http = log.at(row.number, row.scheduled + row.lag_us, interval_us)
        if http is None:
            count["unmatched"] += 1
            continue
        true = log.true(row.number, http, handshake_us)
        for field in FIELDS:
            reported = getattr(row, field)
            if reported is not None and field in true.us:
                errors[field].append(reported - true.us[field])
        error = row.duration - true.us["duration"]
        slacks.append(true.slack_us)
        # From the grid point to the request's arrival, less what passed outside the agent.
        outside = true.us["duration"] - true.us["processing"] - true.us["transfer"]
        lags.append(true.request - row.scheduled - outside)
        count["judged"] += 1
        # What even the latest possible arrival does not explain.
        surely = error - true.slack_us
        if row.error_us is None:
            count["unbounded"] += 1
        elif surely > row.error_us + ROUNDING_US:
            count["uncovered"] += 1
            excess.append(surely - row.error_us)
            worst.append({"excess_us": surely - row.error_us, "error_us": row.error_us, **{
                f"{field}_off_us": getattr(row, field) - true.us[field] for field in FIELDS
                if getattr(row, field) is not None and field in true.us}})
        if error < -ROUNDING_US - 1:
            count["below"] += 1
        is_bad = abs(error) > bad_above_us
        count["bad"] += is_bad
        count["bad_suspect"] += is_bad and row.suspect == 1
        count["suspect"] += row.suspect == 1
        count["needless"] += not is_bad and row.suspect == 1
    reported = [row.lag_us for row in found if row.lag_us is not None]
    bounds = [row.error_us for row in found if row.error_us is not None]
    worst.sort(key=lambda one: -one["excess_us"])
    return {
        "rows": len(found), **{key: count[key] for key in (
            "up", "degraded", "down", "cut", "judged", "unmatched", "unbounded", "uncovered", "below", "bad", "bad_suspect",
            "suspect", "needless")},
        "skipped": sum(skipped.values()), "skipped_by": dict(skipped),
        "covered": 1 - count["uncovered"] / count["judged"] if count["judged"] else None,
        "errors": {field: spread(values) for field, values in errors.items() if values},
        "absolute": spread([abs(value) for value in errors["duration"]]),
        "bound": spread(bounds), "lag": spread(reported), "true_lag": spread(lags), "excess": spread(excess),
        "slack": spread(slacks), "worst": worst[:10],
    }


def calm(log, lines):
    """What a spinning client saw above the truth, and whether its kernel's stamps agree with the log."""
    errors = {field: [] for field in FIELDS}
    handshakes, outside = [], []
    for line in lines.splitlines():
        _, number, start, connected, cpu, shaken, first_rx, first_seen, last_rx, last_seen = line.split()
        number, start, connected, cpu, shaken, first_rx, first_seen, last_rx, last_seen = map(
            int, (number, start, connected, cpu, shaken, first_rx, first_seen, last_rx, last_seen))
        http = log.at(number, start // 1000, 10_000_000)
        if http is None:
            continue
        true = log.true(number, http, cpu / 1000)
        seen = {"connect": connected - start, "processing": first_seen - shaken, "transfer": last_seen - first_seen,
                "duration": last_seen - start}
        if http.hello:
            seen["tls"] = shaken - connected
            handshakes.append(cpu / 1000)
        for field, ns in seen.items():
            errors[field].append(ns / 1000 - true.us[field])
        # 0 where the stamp lies within the write; else how far outside. Segments read as one bear the last one's stamp.
        writes = [(last_rx, http.last, http.last_after)]
        if first_rx != last_rx:
            writes.append((first_rx, http.first, http.first_after))
        outside += [max(before - stamp, stamp - after, 0) / 1000 for stamp, before, after in writes]
    return {"floor": {field: spread(values) for field, values in errors.items() if values},
            "handshake_us": spread(handshakes), "outside_us": spread(outside)}
