"""What scripts/bench --accuracy found, as tables."""

import accuracy_bars
from truth import FIELDS


def ms(us):
    return "" if us is None else f"{us / 1000:.2f}"


def part(spread, *keys):
    return " / ".join(ms(spread[key]) for key in keys) if spread else ""


def percent(value):
    return "" if value is None else f"{value:.3%}"


def line(found):
    """One load, while the others run."""
    total = found["absolute"]
    return (f"{found['load']} %: {found['rate']:.0f}/s, core {found['core']:.0%}, error p50/p99 ms {part(total, 'p50', 'p99')},"
            f" covered {percent(found['covered'])}, bad {found['bad']} ({found['bad_suspect']} suspect),"
            f" skipped {found['skipped']}, down {found['down']}")


def table(head, rows):
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"  # noqa: E731
    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def text(facts, results):
    said = [", ".join(f"{key} {value}" for key, value in facts.items()),
            "Errors: reported - true, ms, p50 / p99 / p99.9 / max."]
    for result in results:
        if "missing" in result:
            said.append(f"{result['kind']}: not here: {result['missing']}")
            continue
        said += [title(result), totals(result), phases(result)]
    return "\n\n".join(said)


def title(result):
    floor = result["floor"]
    calm = ", ".join(f"{field} {ms(floor[field]['p50'])}" for field in FIELDS if field in floor)
    asleep = part(result["asleep"]["duration"], "p50", "p99", "max")
    own = f"; a handshake's own CPU {result['handshake_us']:.0f} µs, in the truth" if result["handshake_us"] else ""
    outside = result["outside_us"]
    return (f"{result['kind']}: full at {result['full_rate']:.0f}/s. Error of a calm client that spins, p50 ms: {calm}{own};"
            f" of one that sleeps, p50 / p99 / max: {asleep}. Arrivals by their kernel outside the logged write:"
            f" p99 {outside['p99']:.0f} µs, max {outside['max']:.0f} µs.")


def totals(result):
    head = ["load", "rate/s", "core", "by agent", "µs/probe", "lag p50 / p99", "true lag p50 / p99", "|error| of duration", "error_us p50 / p99", "covered",
            "judged", "bad", "of them suspect", "needless", "shed", "down", "other"]
    rows = []
    for one in result["loads"]:
        other = ", ".join(f"{one[key]} {key}" for key in ("degraded", "unmatched", "unbounded", "below", "cut") if one[key])
        rows.append([
            f"{one['load']} %", f"{one['rate']:.0f}", f"{one['core']:.0%}",
            f"{one['rate'] * one['us'] / 1e6:.0%}", f"{one['us']:.0f}", part(one["lag"], "p50", "p99"),
            part(one["true_lag"], "p50", "p99"),
            part(one["absolute"], "p50", "p99", "p999", "max"), part(one["bound"], "p50", "p99"), percent(one["covered"]),
            str(one["judged"]), str(one["bad"]), str(one["bad_suspect"]), str(one["needless"]),
            ", ".join(f"{count} {reason}" for reason, count in one["skipped_by"].items()) or "0", str(one["down"]), other])
    return table(head, rows)


def phases(result):
    fields = [field for field in FIELDS if any(field in one["errors"] for one in result["loads"])]
    head = ["load", *fields]
    rows = [[f"{one['load']} %", *(part(one["errors"].get(field), "p50", "p99", "p999", "max") for field in fields)]
            for one in result["loads"]]
    return table(head, rows)


def gate(turns):
    """The table of a gate, and what fails."""
    if len(turns) == 3:
        rows, failed = accuracy_bars.compare(*turns)
        head = ["kind", "load", "figure", "before", "now", "noise", "bar", ""]
    else:
        rows, failed = accuracy_bars.twice(*turns)
        head = ["kind", "load", "figure", "now", "again", "bar", ""]
    return table(head, rows) + "\n\n" + ("worse: " + "; ".join(failed) if failed else "not worse"), failed
