"""Measurements that are no cost per probe: each a list of figures, some with a bar."""

import statistics
import sys
import time

import database
import inflight
import patterns
import scale

# Name, of what, what measures it, and what it tells: key, title, form, bar.
MEMORY = [
    ("in_flight", "probes in flight", "{:.0f}", None),
    ("idle_mb", "RSS without, MB", "{:.1f}", None),
    ("probe_bytes", "RSS per probe in flight, bytes", "{:.0f}", None),
    ("probe_kernel_bytes", "kernel memory of both ends, bytes", "{:.0f}", None),
    ("down", "probes that failed", "{:.0f}", ("<=", 0)),
]


def memory_figures(bytes_max):
    return [(key, title, form, ("<=", bytes_max) if key == "probe_bytes" else bar) for key, title, form, bar in MEMORY]


SHARE = [
    ("rows", "rows stored", "{:.0f}", None),
    ("agent_us", "agent CPU per row, all of it, µs", "{:.1f}", None),
    ("keeper_us", "of that the keeper thread, µs", "{:.2f}", None),
    ("server_us", "server CPU per row, its connections, µs", "{:.2f}", None),
    ("server_other_us", "server CPU per row, WAL writer, checkpointer and the like, µs", "{:.2f}", None),
    ("share_percent", "server's part of agent and server, %", "{:.1f}", None),
]
MEASUREMENTS = [
    ("million", "1 000 000 endpoints at 60–300 s over two processes", scale.million, [
        ("insert_s", "inserted in, s", "{:.1f}", None),
        ("load_s", "from start to all loaded and ready, s", "{:.1f}", ("<=", 30)),
        ("load_cpu_s", "CPU of both agents until then, s", "{:.1f}", None),
        ("loaded_bytes", "RSS per endpoint, loaded, bytes", "{:.0f}", ("<=", 1024)),
        ("endpoint_bytes", "RSS per endpoint, after a minute of probing, bytes", "{:.0f}", ("<=", 1024)),
        ("peak_bytes", "peak RSS per endpoint, bytes", "{:.0f}", None),
        ("rate", "probes/s", "{:.0f}", None),
        ("probe_us", "agent CPU per probe, µs", "{:.1f}", None),
        ("skipped", "skipped", "{:.0f}", None),
        ("change_s", "one changed row heard of after, s", "{:.3f}", ("<=", 2)),
        ("change_s_max", "the slowest of ten, s", "{:.3f}", ("<=", 2)),
        ("change_request_s", "its target's first request, interval of 5 s included, slowest, s", "{:.1f}", None),
        ("change_cpu_ms", "agents' CPU for it, ms", "{:.1f}", ("<", 50)),
        ("change_cpu_ms_noise", "spread of the same windows without a change, ms", "{:.1f}", None),
        ("change_server_ms", "server CPU for it, ms", "{:.1f}", None),
        ("many_s", "1 000 changed rows heard of after, s", "{:.3f}", None),
        ("many_cpu_ms", "agents' CPU for them, ms", "{:.1f}", None),
        ("many_server_ms", "server CPU for them, ms", "{:.1f}", None),
        ("late_changes", "changes that came late (endpoint_gaps)", "{:.0f}", None),
        ("poll_us", "agent CPU per look without a change, µs", "{:.0f}", None),
        ("poll_server_us", "server CPU per look without a change, µs", "{:.0f}", None),
    ]),
    ("memory", "10 000 plain probes in flight", lambda b: inflight.memory(b, False), memory_figures(16_000)),
    ("memory", "10 000 TLS probes in flight", lambda b: inflight.memory(b, True), memory_figures(40_000)),
    ("memory", "10 000 TLS probes in flight, HTTP/2", lambda b: inflight.memory(b, True, "2"), memory_figures(40_000)),
    ("database", "2 000 probes/s", lambda b: database.share(b, 2_000), SHARE),
    ("database", "5 000 probes/s", lambda b: database.share(b, 5_000), SHARE),
    ("database", "one keeper beside psql \\copy, 500 000 rows", database.keeper, [
        ("keeper_rows_s", "keeper, rows/s", "{:.0f}", None),
        ("text_rows_s", "psql \\copy, text, rows/s", "{:.0f}", None),
        ("binary_rows_s", "psql \\copy, binary, rows/s", "{:.0f}", None),
        ("to_text", "keeper to text, median of the turns", "{:.2f}", (">=", 1.1)),
        ("to_text_min", "the least", "{:.2f}", None),
        ("to_text_max", "the most", "{:.2f}", None),
        ("to_binary", "keeper to binary, median of the turns", "{:.2f}", (">=", 0.8)),
        ("to_binary_min", "the least", "{:.2f}", None),
        ("to_binary_max", "the most", "{:.2f}", None),
        ("keeper_us", "the keeper's own CPU per row, µs", "{:.2f}", None),
    ]),
    ("patterns", "patterns over bodies of 1 KiB to 1 MiB", patterns.patterns, [
        ("cases", "linear patterns and bodies", "{:.0f}", None),
        ("ratio", "time beside the regex crate alone, median", "{:.2f}", ("<=", patterns.RATIO_MAX)),
        ("over", f"cases above {patterns.RATIO_MAX} (named above)", "{:.0f}", None),
        ("usual_over", "of them with bodies of 64 KiB at most", "{:.0f}", None),
        ("stall_ms", "longest turn of the probe loop, CPU ms", "{:.2f}", ("<=", 10)),
        ("first_stall_ms", "the same, each pattern's first time", "{:.2f}", ("<=", 10)),
    ]),
]
NAMES = list(dict.fromkeys(name for name, *_ in MEASUREMENTS))


def run(bench, wanted, repeat):
    """Those wanted, each with the medians of `repeat` runs."""
    results = []
    for name, what, measure, figures in MEASUREMENTS:
        if name not in wanted:
            continue
        taken = []
        for turn in range(repeat):
            begun = time.monotonic()
            taken.append(measure(bench))
            print(f"{name}: {what}: done ({time.monotonic() - begun:.0f} s, run {turn + 1} of {repeat})",
                  file=sys.stderr, flush=True)
        keys = [key for key in taken[0] if all(key in one for one in taken)]
        result = {"name": name, "what": what, "runs": repeat}
        result |= {key: statistics.median(one[key] for one in taken) for key in keys}
        if repeat > 1:
            result["spread"] = {key: [min(one[key] for one in taken), max(one[key] for one in taken)] for key in keys}
        results.append(result | {"missed": missed(result, figures)})
    return results


def holds(value, bar):
    sign, limit = bar
    return {"<=": value <= limit, "<": value < limit, ">=": value >= limit}[sign]


def missed(result, figures):
    return [key for key, _, _, bar in figures if bar and key in result and not holds(result[key], bar)]


def table(facts, results):
    head = ["of", "figure", "", "spread", "bar"]
    rows = []
    for result in results:
        figures = next(known for name, what, _, known in MEASUREMENTS if (name, what) == (result["name"], result["what"]))
        for key, title, form, bar in figures:
            if key not in result:
                continue
            spread = "–".join(form.format(end) for end in result["spread"][key]) if "spread" in result else ""
            said = "" if bar is None else f"{bar[0]} {bar[1]}" + (" MISSED" if key in result["missed"] else "")
            rows.append([result["what"], title, form.format(result[key]), spread, said])
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"  # noqa: E731
    said = ", ".join(f"{key} {value}" for key, value in facts.items())
    return "\n".join([said, "", line(head), line(["-" * width for width in widths]), *map(line, rows)])
