"""scripts/bench-gate, once both trees are built: runs, compares, says which path became slower."""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

INSTRUCTIONS_MAX = 0.02
TIME_MAX = 0.10
NOISE_TIMES = 3
# Runs of a path: enough that its start-up is small beside it, few enough for callgrind, which is 50 times slower.
COUNTS = {"schedule": 2_000, "buffer": 20_000, "copy_encode": 20_000, "body_match": 20_000, "probe": 1_000}
CRITERION = ["schedule", "buffer", "copy_encode", "body_match", "probe"]


def instructions(binary, path):
    """Per run: the difference between twice as many and so many."""

    def of(count):
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(binary), path, str(count)],
            capture_output=True, text=True, check=False)
        # valgrind's own exit code is 0 when what it runs is killed.
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or not found or "terminating" in done.stderr:
            sys.exit(f"{binary} {path} {count} failed:\n{done.stderr[-2000:]}")
        return int(found[1])

    count = COUNTS[path]
    return (of(2 * count) - of(count)) / count


def times(folder, name, where):
    """Medians of one criterion bench, ns."""
    binary = folder / name
    if not binary.exists():
        return {}
    home = where / "criterion"
    environment = dict(os.environ, CRITERION_HOME=str(home))
    subprocess.run([str(binary), "--bench", "--noplot"], env=environment, stdout=subprocess.DEVNULL, check=True)
    found = {}
    for estimates in home.glob("**/new/estimates.json"):
        found["/".join(estimates.relative_to(home).parts[:-2])] = json.loads(estimates.read_text())["median"]["point_estimate"]
    return found


def judged(first, now, again, least):
    """The base by its two runs, the change, the base's own noise, and whether the change is beyond it and `least`."""
    before = (first + again) / 2
    change, noise = now / before - 1, abs(first - again) / before
    return before, change, noise, change > max(least, NOISE_TIMES * noise)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--work", type=pathlib.Path, required=True)
    arguments.add_argument("--report", type=pathlib.Path, required=True)
    arguments.add_argument("--times", action="store_true")
    asked = arguments.parse_args()
    base, head = asked.work / "base", asked.work / "head"
    lines, failed = [], []

    lines += ["| path | instructions before | now | change | noise | |", "|---|---|---|---|---|---|"]
    for path in COUNTS:
        if not (base / "instructions").exists():
            lines.append(f"| {path} | none | {instructions(head / 'instructions', path):.0f} | | | new |")
            continue
        # A path that waits for a peer takes as many turns as that makes it wait.
        first, now, again = (instructions(folder / "instructions", path) for folder in (base, head, base))
        before, change, noise, bad = judged(first, now, again, INSTRUCTIONS_MAX)
        failed += [f"{path}: {change:+.1%} instructions (noise {noise:.1%})"] if bad else []
        lines.append(f"| {path} | {before:.0f} | {now:.0f} | {change:+.1%} | {noise:.1%} | {'slower' if bad else ''} |")

    if asked.times:
        lines += ["", "| bench | before, ns | now, ns | change | noise | |", "|---|---|---|---|---|---|"]
        for name in CRITERION:
            # Base, head, base: what the machine does in between counts for both.
            first = times(base, name, asked.work / "first" / name)
            now = times(head, name, asked.work / "now" / name)
            again = times(base, name, asked.work / "again" / name)
            for key in sorted(now):
                if key not in first or key not in again:
                    lines.append(f"| {key} | none | {now[key]:.0f} | | | new |")
                    continue
                before, change, noise, bad = judged(first[key], now[key], again[key], TIME_MAX)
                failed += [f"{key}: {change:+.1%} time (noise {noise:.1%})"] if bad else []
                lines.append(f"| {key} | {before:.0f} | {now[key]:.0f} | {change:+.1%} | {noise:.1%} | "
                             f"{'slower' if bad else ''} |")

    verdict = "slower: " + "; ".join(failed) if failed else "not slower"
    text = "\n".join([*lines, "", verdict, ""])
    print(text)
    asked.report.write_text(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
