"""What a bench found: a table for a terminal or a README, and a picture."""

import subprocess
import textwrap


def floor_of(results, name):
    return next((one for one in results if one["name"] == name and one["who"] == "floor"), None)


def agent_of(results, name):
    return next((one for one in results if one["name"] == name and one["who"] == "agent"), None)


def ratio(results, one):
    """To the floor in its group; where there is none, the peer to the agent."""
    floor = floor_of(results, one["name"])
    if floor and one is not floor:
        return f"{one['us'] / floor['us']:.2f} x floor"
    agent = agent_of(results, one["name"])
    if agent and one is not agent and not floor:
        return f"{one['us'] / agent['us']:.1f} x agent"
    return ""


def table(facts, results):
    head = ["what", "who", "µs/probe", "user", "sys", "rate/s", "RSS MB", "ratio", "lag p99 ms", "rows"]
    rows = []
    for one in results:
        spread = f" ({one['us_min']:.1f}–{one['us_max']:.1f})" if one["runs"] > 1 else ""
        split = [f"{one[key]:.1f}" if key in one else "" for key in ("user_us", "sys_us")]
        lag = f"{one['lag_p99_us'] / 1000:.2f}" if "lag_p99_us" in one else ""
        stored = ""
        if "rows" in one:
            stored = f"{one['rows']:.0f}"
            for key in ("skipped", "down", "missing", "duplicates"):
                stored += f", {one[key]:.0f} {key}" if one[key] else ""
        if "recovered_s" in one:
            stored += f"; {one['recovered_s']:.1f} s after the fall lag p99 is {one['calm_lag_p99_us'] / 1000:.1f} ms"
        rss = f"{one['rss'] / 1e6:.0f}" if "rss" in one else ""
        rows.append([f"{one['name']}: {one['what']}", one["who"], f"{one['us']:.1f}{spread}", *split,
                     f"{one['rate']:.0f}", rss, ratio(results, one), lag, stored])
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"  # noqa: E731
    said = ", ".join(f"{key} {value}" for key, value in facts.items())
    return "\n".join([said, "", line(head), line(["-" * width for width in widths]), *map(line, rows)])


def plot(path, results, python):
    """By matplotlib, which lives with the peers."""
    interpreter = python / "bin" / "python"
    if not interpreter.exists():
        print("bench: no picture: matplotlib could not be installed")
        return
    bars = [(f"{one['name']}\n{one['who']}", one["us"], one["us_min"], one["us_max"]) for one in results]
    drawing = textwrap.dedent(f"""
        import matplotlib
        matplotlib.use("svg")
        from matplotlib import pyplot
        bars = {bars!r}
        figure, axes = pyplot.subplots(figsize=(10, 0.45 * len(bars) + 1.5))
        places = range(len(bars))
        errors = [[us - low for _, us, low, _ in bars], [high - us for _, us, _, high in bars]]
        axes.barh(places, [us for _, us, _, _ in bars], xerr=errors)
        axes.set_yticks(places, [name for name, *_ in bars], fontsize=7)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("CPU per probe, µs (log)")
        figure.tight_layout()
        figure.savefig({str(path)!r})
    """)
    subprocess.run([str(interpreter), "-c", drawing], check=True)
