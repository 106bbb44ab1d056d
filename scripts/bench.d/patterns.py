"""Patterns: the linear engine beside the `regex` crate alone, and the longest turn that any gives the probe loop."""

import json
import os
import statistics
import subprocess
import sys

from world import MEASURED, Trouble

# Above this many times the crate's own time a case is named.
RATIO_MAX = 1.1


def patterns(_bench):
    done = subprocess.run([os.environ["PATTERNS_BIN"], "--run"], capture_output=True, text=True, check=False,
                          preexec_fn=lambda: os.sched_setaffinity(0, MEASURED))
    if done.returncode:
        raise Trouble(f"the bench of patterns ended with {done.returncode}:\n{done.stderr[-2000:]}")
    cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ratios = [case for case in cases if "linear" in case]
    stalls = [case for case in cases if "stall" in case]
    if not ratios or not stalls:
        raise Trouble(f"the bench of patterns said nothing:\n{done.stdout[-2000:]}")
    for case in ratios:
        if case["ratio"] > RATIO_MAX:
            print(f"patterns: {case['linear']} over {case['bytes']} bytes: {case['ours_ns']:.0f} ns, "
                  f"the crate alone {case['crate_ns']:.0f}", file=sys.stderr)
    usual = [case["ratio"] for case in ratios if case["bytes"] <= 64 << 10]
    return {
        "cases": len(ratios), "ratio": statistics.median(case["ratio"] for case in ratios),
        "over": sum(case["ratio"] > RATIO_MAX for case in ratios), "usual_over": sum(ratio > RATIO_MAX for ratio in usual),
        "stall_ms": max(case["us"] for case in stalls) / 1e3,
        "first_stall_ms": max(case["first_us"] for case in stalls) / 1e3,
    }
