"""What a bench found: a table for a terminal or a README, and a picture."""

import subprocess
import textwrap


def spread(one, key, form):
    """The median, and the least and the most of several runs."""
    text = form.format(one[key])
    if one["runs"] > 1:
        text += f" ({form.format(one[key + '_min'])}–{form.format(one[key + '_max'])})"
    return text


def ratio(results, one):
    """To the first of its group, each in the same run."""
    if "ratio" not in one:
        return ""
    first = next(other for other in results if other["name"] == one["name"])
    return f"{spread(one, 'ratio', '{:.2f}' if first['who'] == 'floor' else '{:.1f}')} x {first['who']}"


def table(facts, results):
    head = ["what", "who", "µs/probe", "user", "sys", "rate/s", "RSS MB", "ratio", "lag p99 ms", "stolen %", "rows"]
    rows = []
    for one in results:
        split = [f"{one[key]:.1f}" if key in one else "" for key in ("user_us", "sys_us")]
        lag = f"{one['lag_p99_us'] / 1000:.2f}" if "lag_p99_us" in one else ""
        stored = ""
        if "rows" in one:
            stored = f"{one['rows']:.0f}"
            for key in ("skipped", "down", "missing", "duplicates"):
                stored += f", {one[key]:.0f} {key}" if one[key] else ""
        if "share" in one:
            stored += f"; asked {one['share']:.2f} x the floor, {one['floor_rate']:.0f}/s before and {one['floor_rate_after']:.0f} after"
        if "recovered_s" in one:
            stored += f"; {one['recovered_s']:.1f} s after the fall lag p99 is {one['calm_lag_p99_us'] / 1000:.1f} ms"
        rss = f"{one['rss'] / 1e6:.0f}" if "rss" in one else ""
        rows.append([f"{one['name']}: {one['what']}", one["who"], spread(one, "us", "{:.1f}"), *split,
                     f"{one['rate']:.0f}", rss, ratio(results, one), lag, f"{one['stolen']:.1f}", stored])
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
    colours = {"floor": "#999999", "agent": "#1f77b4"}
    bars = [(f"{one['name']}: {one['who']}", one["us"], one["us_min"], one["us_max"], colours.get(one["who"], "#dd8452"))
            for one in results]
    drawing = textwrap.dedent(f"""
        import matplotlib
        matplotlib.use("svg")
        from matplotlib import pyplot, ticker
        names, us, least, most, colours = zip(*{bars!r})
        figure, axes = pyplot.subplots(figsize=(10, 0.35 * len(us) + 1.2))
        errors = [[middle - low for middle, low in zip(us, least)], [high - middle for middle, high in zip(us, most)]]
        drawn = axes.barh(range(len(us)), us, xerr=errors, color=colours, height=0.7)
        axes.bar_label(drawn, [f"{{value:.0f}}" for value in us], padding=4, fontsize=8)
        axes.set_yticks(range(len(us)), names, fontsize=8)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(min(least) / 2, max(most) * 1.6)
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{{x:g}}"))
        axes.set_xlabel("CPU per probe, µs (log); the line is the spread of the runs")
        figure.tight_layout()
        figure.savefig({str(path)!r})
    """)
    subprocess.run([str(interpreter), "-c", drawing], check=True)
