"""Makes cases.json: what `calibration.py` of InvarLock 0.12.1 says of random runs.

Run with the Python of a virtual environment that has invarlock 0.12.1: python make.py > cases.json
"""

import json
import random
import sys

from invarlock.calibration import summarize_null_sweep_reports, summarize_ve_sweep_reports

FAMILIES = ["attn", "embed", "ffn", "other"]


def spectral_run(rng, multiple_testing):
    """The members of a spectral guard that a null sweep reads."""
    max_z = {f: rng.uniform(-1, 6) for f in FAMILIES if rng.random() < 0.9}
    max_abs_z = {f: max(abs(z), rng.uniform(0, 6)) for f, z in max_z.items()}
    p_values = {f: min(1.0, 10 ** rng.uniform(-9, 0)) for f in max_z if rng.random() < 0.5}
    selected = [f for f in p_values if rng.random() < 0.3]
    violations = {f: rng.randint(1, 3) for f in selected}
    return {
        "max_z": max_z,
        "max_abs_z": max_abs_z,
        "p_values": p_values,
        "selected": sorted(selected),
        "candidates": {f: rng.randint(1, 5) for f in p_values},
        "violations": violations,
        "caps_applied": sum(violations.values()),
        "caps_exceeded": False,
        "multiple_testing": multiple_testing,
    }


def spectral_report(run):
    metrics = {
        "family_z_summary": {f: {"max": z} for f, z in run["max_z"].items()},
        "family_z_quantiles": {f: {"max": z} for f, z in run["max_abs_z"].items()},
        "multiple_testing": run["multiple_testing"],
        "multiple_testing_selection": {
            "family_pvalues": run["p_values"],
            "families_selected": run["selected"],
            "family_violation_counts": run["candidates"],
        },
        "caps_applied": run["caps_applied"],
    }
    violations = [{"family": f} for f, n in run["violations"].items() for _ in range(n)]
    return {"guards": [{"name": "spectral", "metrics": metrics, "violations": violations}]}


def null_case(rng):
    multiple_testing = rng.choice(
        [{"method": "bh", "alpha": 0.05, "m": 4}, {"method": "bonferroni", "alpha": 0.000625, "m": 4}]
    )
    runs = [spectral_run(rng, multiple_testing) for _ in range(rng.randint(1, 12))]
    settings = {
        "safety_margin": rng.choice([0.0, 0.05, 0.5, 3.0]),
        "target_any_warning_rate": rng.choice([0.0, 0.01, 0.3, 0.6, -1.0]),
    }
    summary = summarize_null_sweep_reports([spectral_report(r) for r in runs], tier="balanced", **settings)
    return {"runs": runs, "settings": settings, "summary": summary}


def gate(rng):
    if rng.random() < 0.1:
        return {"evaluated": False, "mean_delta": None, "delta_ci": None}
    mean = rng.choice([rng.uniform(-0.05, 0.02), -0.01])
    width = rng.choice([rng.uniform(0, 0.03), 0.004])
    return {"evaluated": True, "mean_delta": mean, "delta_ci": [mean - width, mean + width]}


def ve_case(rng):
    gates = [gate(rng) for _ in range(rng.randint(1, 24))]
    one_sided = rng.random() < 0.5
    settings = {
        "safety_margin": rng.choice([0.0, 0.1, 2.0]),
        "target_enable_rate": rng.choice([0.0, 0.05, 0.25, 1.0, 1.5]),
    }
    reports = [{"guards": [{"name": "variance", "metrics": {"predictive_gate": g}}]} for g in gates]
    summary = summarize_ve_sweep_reports(reports, tier="balanced", predictive_one_sided=one_sided, **settings)
    return {"gates": gates, "one_sided": one_sided, "settings": settings, "summary": summary}


rng = random.Random(12)
json.dump({"null": [null_case(rng) for _ in range(8)], "ve": [ve_case(rng) for _ in range(24)]}, sys.stdout)
