"""What the figures of scripts/bench --accuracy have to keep, and whether they became worse than another tree's."""

NOISE_TIMES = 3


def silent(found):
    """Of the samples that are wrong by more than --suspect-above, the part that does not say so."""
    return (found["bad"] - found["bad_suspect"]) / found["bad"] if found["bad"] else 0.0


def uncovered(found):
    return (found["uncovered"] + found["unbounded"]) / max(1, found["judged"])


# Name; of which kinds and loads; the figure; its bar; what is too small a change to be told from luck.
SLOW = ("tls", "phases")
BARS = (
    ("error p50, ms", lambda kind, load: kind not in SLOW and load <= 90, lambda f: f["absolute"]["p50"] / 1000, 0.3, 0.05),
    ("error p99, ms", lambda kind, load: kind not in SLOW and load <= 90, lambda f: f["absolute"]["p99"] / 1000, 1.0, 0.3),
    ("true lag p99, ms", lambda kind, load: kind not in SLOW and load <= 80, lambda f: f["true_lag"]["p99"] / 1000, 2.5, 0.5),
    ("not covered by error_us", lambda kind, load: True, uncovered, 0.001, 0.001),
    ("wrong and not suspect", lambda kind, load: load > 100, silent, 0.001, 0.001),
    ("down", lambda kind, load: True, lambda f: f["down"], 0, 0),
)


def figures(results):
    """Every figure that has a bar: (kind, load, name) → (figure, bar, least)."""
    found = {}
    for result in results:
        for one in result.get("loads", ()):
            for name, holds, figure, bar, least in BARS:
                if holds(result["kind"], one["load"]) and one["judged"]:
                    found[result["kind"], one["load"], name] = (figure(one), bar, least)
    return found


def shown(value):
    return f"{value:.4g}"


def lines(results):
    """Which bars are kept: a line each for those that are not."""
    missed = [f"missed: {kind} at {load} %: {name}: {shown(value)} (bar {shown(bar)})"
              for (kind, load, name), (value, bar, _) in figures(results).items() if value > bar]
    return missed or ["every bar is kept"]


def compare(first, now, again):
    """Base, head, base: a table, and what fails. A figure fails when it is worse than the base's by more than three times
    what the base's own two runs differ by, and by more than luck. Bars are shown; a machine that is too noisy for them is
    so for both."""
    before, head, after = map(figures, (first, now, again))
    rows, failed = [], []
    for key, (value, bar, least) in head.items():
        if key not in before or key not in after:
            continue
        base, noise = (before[key][0] + after[key][0]) / 2, abs(before[key][0] - after[key][0])
        kind, load, name = key
        is_worse = value > base + max(NOISE_TIMES * noise, least)
        if is_worse:
            failed.append(f"{kind} at {load} %: {name}: {shown(base)} → {shown(value)} (noise {shown(noise)})")
        rows.append([kind, f"{load} %", name, shown(base), shown(value), shown(noise), shown(bar), "worse" if is_worse else ""])
    return rows, failed


def twice(first, again):
    """Without a base: what misses its bar in both of two runs."""
    one, two = figures(first), figures(again)
    rows, failed = [], []
    for key, (value, bar, _) in one.items():
        if key not in two:
            continue
        kind, load, name = key
        missed = min(value, two[key][0]) > bar
        if missed:
            failed.append(f"{kind} at {load} %: {name}: {shown(value)} and {shown(two[key][0])} (bar {shown(bar)})")
        rows.append([kind, f"{load} %", name, shown(value), shown(two[key][0]), shown(bar), "missed" if missed else ""])
    return rows, failed
