"""InvarLock's Python package 0.12.1 on `runtime engine`, on Podman and as a `delegate` image: `evaluate`, losses and verdicts compared. Then the
same evaluation by our own evaluator: time and memory against those of the package.

Called by engine-upstream.sh with the Python of an installation of the package (`tests/tools/upstream-venvs.sh`), which makes the plan of the
container and starts it as its own `evaluate` does; that one would need PyTorch here too.

    engine_upstream.py IMAGE MODELS PRESET WORK BASELINE,SUBJECT… ENGINE=DIR… delegate=INVARLOCK
"""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from invarlock import runtime_security as security


@contextmanager
def redirected(to):
    """Standard output and standard error, of containers too, go to a file."""
    saved = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    os.dup2(to, 1)
    os.dup2(to, 2)
    try:
        yield
    finally:
        for stream, copy in enumerate(saved, start=1):
            os.dup2(copy, stream)
            os.close(copy)


def evaluate(engine, directory, image, work, baseline, subject):
    """One comparison; gives the report, the exit code of the package's verifier, and the seconds."""
    out = f"{engine}-{subject}"
    os.environ |= {
        "PATH": f"{directory}:{PATH}", "INVARLOCK_CONTAINER_ENGINE": "podman", "INVARLOCK_RUNTIME_IMAGE": image,
        # What an engine mounts of the image is read-only here.
        "HF_HOME": str(work / "cache"),
    }
    command = ["evaluate", "--baseline", baseline, "--subject", subject, "--preset", "preset.yaml", "--profile", "ci"]
    command += ["--device", "cpu", "--assurance", "off", "--out", f"{out}-runs", "--report-out", out]
    os.chdir(work)
    started = time.monotonic()
    with open(work / f"{out}.log", "wb") as log, redirected(log.fileno()):
        if engine == "delegate":
            # A failed gate has exit code 1 here, and 0 in the package.
            code = subprocess.run([directory, *command, "--image", image, "--no-gate"]).returncode
        else:
            plan = security.build_current_process_container_launch_plan(command)
            code = security.delegate_container_command(plan)
    seconds = time.monotonic() - started
    if code != 0:
        sys.exit(f"{engine}: evaluate ended with {code}:\n{(work / f'{out}.log').read_text()}")
    report = work / out / "evaluation.report.json"
    verify = [sys.executable, "-m", "invarlock", "verify", "--profile", "ci", "--assurance", "off", "--json", str(report)]
    verified = subprocess.run(verify, capture_output=True, text=True)
    if engine == "delegate":
        judged_by_us(directory, report, verified.returncode)
    return json.loads(report.read_text()), verified.returncode, seconds


def measured(command):
    """Runs `evaluate`; gives its manifest, its report and its seconds."""
    shutil.rmtree("measured", ignore_errors=True)
    started = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name != "INVARLOCK_RUNTIME_IMAGE"}
    subprocess.run([*command, "--report-out", "measured"], env=environment, check=True, capture_output=True)
    seconds = time.monotonic() - started
    read = lambda name: json.loads(Path("measured", name).read_text())
    return read("runtime.manifest.json")["context"], read("evaluation.report.json"), seconds


def by_evaluator(invarlock, image, baseline, subject):
    """The evaluation by our evaluator, against that by the package as a `delegate` image: time, and peak memory of the containers."""
    command = [invarlock, "evaluate", "--baseline", baseline, "--subject", subject, "--preset", "preset.yaml", "--profile", "ci", "--no-gate"]
    # The first run builds the default image.
    own = ([*command, "--out", "own-runs", "--no-resume"] for _ in range(2))
    (_, _, _), (context, report, seconds) = map(measured, own)
    package = [*command, "--image", image, "--device", "cpu", "--assurance", "off", "--out", "package-runs"]
    package_context, package_report, package_seconds = measured(package)
    ratio, expected = (one["primary_metric"]["ratio_vs_baseline"] for one in (report, package_report))
    if abs(ratio / expected - 1) > 1e-5:
        sys.exit(f"{subject}: the ratio is {ratio}, and {expected} by the package")
    mebibytes = lambda run: run["usage"]["peak_memory_bytes"] / 2**20
    memory = max(mebibytes(side) for side in context["sides"].values())
    package_memory = mebibytes(package_context["delegated"]["run"])
    print(f"{subject} by the evaluator: ratio {ratio}; {seconds:.2f} s, {seconds / package_seconds:.3f} of the package; "
          f"{memory:.0f} MiB, {memory / package_memory:.3f} of the package ({package_memory:.0f} MiB)", flush=True)


def judged_by_us(invarlock, report, expected):
    """Our verifier has the same verdict on the gates, and none on the boundary; the manifest is that of the report."""
    ours = subprocess.run([invarlock, "verify", "--accept-foreign", "--json", str(report)], capture_output=True, text=True)
    result = json.loads(ours.stdout)["results"][0]
    if ours.returncode != expected or not result["delegated"]["isolated"] or result["errors"] != result["gate_failures"]:
        sys.exit(f"delegate: our verifier ended with {ours.returncode}, upstream's with {expected}: {result['errors']}")
    manifest = str(report.with_name("runtime.manifest.json"))
    subprocess.run([invarlock, "advanced", "runtime-verify", "--report", str(report), "--manifest", manifest], check=True,
                   stdout=subprocess.DEVNULL)


def facts(report):
    """The numbers and the verdict."""
    metric = report["primary_metric"]
    losses = report.get("evaluation_windows", {}).get("final", {}).get("logloss")
    return {
        "preview": metric.get("preview"), "final": metric.get("final"), "ratio": metric.get("ratio_vs_baseline"),
        "interval": metric.get("display_ci"), "losses": losses, "validation": report.get("validation"),
    }


def main():
    image, models, preset, work, sides, *engines = sys.argv[1:]
    work = Path(work)
    baseline, *subjects = sides.split(",")
    for name in dict.fromkeys((baseline, *subjects)):
        shutil.copytree(Path(models) / name, work / name)
    shutil.copy(preset, work / "preset.yaml")
    shutil.copy(Path(preset).with_name("valid.jsonl"), work / "valid.jsonl")
    (work / "cache").mkdir()
    failed = False
    for subject in subjects:
        results = {}
        for engine in engines:
            name, directory = engine.split("=", 1)
            report, code, seconds = evaluate(name, directory, image, work, baseline, subject)
            results[name] = (facts(report), code)
            found = results[name][0]
            print(f"{subject} on {name}: ratio {found['ratio']}, verify {code}, {seconds:.1f} s", flush=True)
        ours = dict(engine.split("=", 1) for engine in engines)["delegate"]
        by_evaluator(ours, image, baseline, subject)
        first, *others = results.values()
        same = all(other == first for other in others)
        print(f"{subject}: {'the same' if same else 'DIFFERENT'} on {', '.join(results)}")
        if not same:
            print(json.dumps(results, indent=1, default=str)[:4000])
        failed |= not same
    sys.exit(failed)


PATH = os.environ["PATH"]
if __name__ == "__main__":
    main()
