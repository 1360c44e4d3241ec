"""InvarLock's Python package 0.17.1 on `runtime engine` and on Podman: `evaluate request.yaml`, evidence and verdicts compared.

Called by engine-upstream.sh with the Python of an installation of the package (`tests/tools/upstream-venvs.sh`). The package itself makes the
calls to the engine. All engines have the same image, by its digest.

    engine_upstream_workers.py IMAGE MODELS TEXTS WORK BASELINE,SUBJECT… REPEATS RECORDS ENGINE=DIR…

TEXTS is a JSON lines file: `text`, of which windows are made, or `prompt` and `reference`, which are used as they are.
"""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from invarlock.core.checkpoint_identity import checkpoint_tree_sha256

WINDOWS = 24
METRIC = "normalized_nll_per_utf8_byte"
# A ratio of losses per byte, not of perplexities.
POLICY = {"resolved_policy": {"metrics": {METRIC: {"ratio_max": 1.0221}}}}
# The digest of the tokenizer follows from the release of transformers in the image, so the image is asked.
TOKENIZER = """
import sys
from transformers import AutoConfig, AutoTokenizer
from invarlock.runtime_providers.hf_transformers import hf_tokenizer_contract_sha256, load_hf_text_tokenizer
from pathlib import Path
path = Path("/models") / sys.argv[1]
tokenizer = load_hf_text_tokenizer(AutoTokenizer.from_pretrained, path)
print(hf_tokenizer_contract_sha256(tokenizer))
"""
PATH = os.environ["PATH"]
INVARLOCK = [sys.executable, "-m", "invarlock"]


class Engine:
    """An engine: a program `podman`, or `docker`, in a directory."""

    def __init__(self, name, directory, program="podman"):
        self.name, self.directory, self.program = name, directory, program
        self.environment = os.environ | {"PATH": f"{directory}:{PATH}", "INVARLOCK_CONTAINER_ENGINE": program}

    def call(self, *args):
        ran = subprocess.run([f"{self.directory}/{self.program}", *args], capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"{self.name}: {' '.join(args)[:200]} ended with {ran.returncode}: {ran.stderr}")
        return ran.stdout

    def images(self, name):
        """The image by the digest of its manifest, and by that of its configuration, as the package accepts them."""
        image = json.loads(self.call("image", "inspect", name))[0]
        by_manifest = next(digest for digest in image["RepoDigests"] if digest.startswith("localhost/"))
        return by_manifest, f"sha256:{image['Id'].removeprefix('sha256:')}"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def windows(source, most_bytes):
    """Text windows. A token has at least one byte, so a window fits a context of as many tokens."""
    lines = [json.loads(line) for line in source.read_text().splitlines() if line.strip()]
    if "prompt" in lines[0]:
        return lines
    texts = [line["text"] for line in lines if line["text"].isascii() and len(line["text"]) >= most_bytes][:WINDOWS]
    return [{"id": f"window-{i:03}", "prompt": text[:8], "reference": text[8:most_bytes]} for i, text in enumerate(texts)]


def context_length(model):
    config = json.loads((model / "config.json").read_text())
    return min(config.get("n_positions") or config.get("max_position_embeddings"), 128)


class Comparison:
    """Models, dataset and policy, and the requests about them."""

    def __init__(self, work, models, texts, sides, first, image):
        self.work, self.image = work, image
        baseline, *self.subjects = sides
        self.baseline = baseline
        for name in dict.fromkeys(sides):
            shutil.copytree(models / name, work / "models" / name)
        # The worker's user reads them.
        for path in (work / "models", *(work / "models").rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.context = context_length(work / "models" / baseline)
        data = "".join(json.dumps(window) + "\n" for window in windows(texts, self.context - 2)).encode()
        (work / "windows.jsonl").write_bytes(data)
        self.dataset = sha256(data)
        (work / "policy.json").write_text(json.dumps(POLICY))
        (work / "tmp").mkdir()
        self.settings = {name: self.side_settings(first, name) for name in dict.fromkeys(sides)}
        subprocess.run([*INVARLOCK, "evaluate", "--keygen", "signer"], check=True, cwd=work, stdout=subprocess.DEVNULL)
        subprocess.run([*INVARLOCK, "evaluate", "--keygen", "verifier"], check=True, cwd=work, stdout=subprocess.DEVNULL)

    def side_settings(self, engine, name):
        mount = f"type=bind,source={self.work / 'models'},target=/models,readonly"
        asked = engine.call(
            "run", "--rm", "--network", "none", "--mount", mount, "-e", "HOME=/tmp", "--entrypoint", "python", self.image,
            "-c", TOKENIZER, name,
        )
        return {
            "seed": 43, "context_length": self.context, "batch_size": 1, "max_output_tokens": self.context,
            "timeout_seconds": 300, "offline": True,
            "checkpoint_tree_sha256": checkpoint_tree_sha256(self.work / "models" / name).removeprefix("sha256:"),
            "tokenizer_metadata_sha256": asked.split()[-1],
        }

    def request(self, subject, output, settings):
        def side(name, changed):
            return {
                "artifact": {"path": f"models/{name}", "model_id": name, "locator": f"local:{name}"},
                "runtime": {"provider": "hf_transformers", "settings": self.settings[name] | changed},
            }

        request = {
            "format_version": "invarlock/evaluation-request-v1",
            "comparison": {
                "baseline": side(self.baseline, {}), "subject": side(subject, settings),
                "dataset": {
                    "path": "windows.jsonl", "sha256": self.dataset, "format": "jsonl", "name": "valid-windows",
                    "split": "validation", "input_field": "prompt", "expected_output_field": "reference", "id_field": "id",
                },
                "policy": "policy.json", "task": "text_causal", "metric": METRIC,
            },
            "execution": {"mode": "run"},
            "output": {"evidence": output},
        }
        path = self.work / f"{output.replace('/', '-')}.yaml"
        path.write_text(json.dumps(request))
        return path

    def evaluate(self, engine, subject, output, settings=None, image=None):
        """The exit code, what was printed, and the seconds."""
        request = self.request(subject, output, settings or {})
        image = image or self.image
        environment = engine.environment | {
            "INVARLOCK_RUNTIME_IMAGE": image, "INVARLOCK_RUNTIME_IMAGE_DIGEST": image.rsplit("@", 1)[-1],
            "INVARLOCK_SIGNING_KEY": str(self.work / "signer/private.pem"), "TMPDIR": str(self.work / "tmp"),
        }
        (self.work / output).parent.mkdir(parents=True, exist_ok=True)
        command = [*INVARLOCK, "evaluate", str(request), "--json"]
        started = time.monotonic()
        ran = subprocess.run(command, env=environment, cwd=self.work, capture_output=True, text=True)
        taken = time.monotonic() - started
        if left := os.listdir(self.work / "tmp"):
            sys.exit(f"{subject} on {engine.name}: {left} was left")
        return ran.returncode, ran.stdout + ran.stderr, taken

    def verify(self, output, anchors):
        """The exit code and the verdict of the package's verifier, with anchors from outside the pack."""
        trust = self.work / "trust"
        trust.mkdir(exist_ok=True)
        shutil.copy(self.work / "policy.json", trust)
        shutil.copy(self.work / "verifier/private.pem", trust / "verifier.pem")
        profile = {
            "format": "invarlock/trust-inputs-v1", "policy": {"path": "policy.json"}, "anchors": anchors,
            "verifier": {"identity": "engine-upstream", "signing_key_path": "verifier.pem"}, "allow_installed_scorers": False,
        }
        (trust / "trust.json").write_text(json.dumps(profile))
        receipt = self.work / f"{output.replace('/', '-')}.receipt.json"
        command = [*INVARLOCK, "verify", output, "--trust-profile", str(trust / "trust.json"), "--receipt", str(receipt), "--json"]
        ran = subprocess.run(command, cwd=self.work, capture_output=True, text=True)
        answer = json.loads(ran.stdout)
        return ran.returncode, answer.get("policy_verdict"), answer["errors"]

    def anchors(self, output):
        """What a recipient would have pinned: the same for every engine."""
        pack = self.work / output
        read = lambda name: json.loads((pack / name).read_text())
        material = {role: entry["material_digest"] for role, entry in read("manifest.json")["inputs"].items()}
        return {
            "baseline_artifact_digest": material["baseline"], "subject_artifact_digest": material["subject"],
            "schedule_digest": material["dataset"], "baseline_runtime_digest": material["baseline_runtime"],
            "subject_runtime_digest": material["subject_runtime"],
            "evidence_signer_fingerprint": read("manifest.json")["signing_key_fingerprint"],
        }


def digests(pack):
    """The digest of each file of a pack."""
    return {str(path.relative_to(pack)): sha256(path.read_bytes()) for path in sorted(pack.rglob("*")) if path.is_file()}


def without_time(pack):
    """Those that do not follow from the time of a run: the workers' manifests, and what has their digests."""
    timed = ("runtime.manifest.json", "manifest.json", "manifest.signature.json", "checksums.sha256")
    return {name: digest for name, digest in digests(pack).items() if name.rsplit("/", 1)[-1] not in timed}


def denied(records):
    """The system calls that runs were denied, from the records of this engine."""
    calls = Counter()
    for path in Path(records).glob("*.json"):
        run = json.loads(path.read_text())["run"]
        calls.update(run["refused"] if run else {})
    return dict(sorted(calls.items()))


def compare(comparison, engines, subject, repeats):
    """Whether every engine gives the same evidence and verdicts."""
    seconds, packs, codes = {}, {}, {}
    for i in range(repeats):
        for engine in engines:
            output = f"out/{engine.name}-{subject}-{i}"
            code, printed, taken = comparison.evaluate(engine, subject, output)
            if code != 0:
                sys.exit(f"{subject} on {engine.name}: evaluate ended with {code}: {printed}")
            seconds.setdefault(engine.name, []).append(taken)
            packs[engine.name, i] = without_time(comparison.work / output)
            anchors = comparison.anchors(f"out/{engines[0].name}-{subject}-0")
            codes[engine.name, i] = comparison.verify(output, anchors)
    first = packs[engines[0].name, 0]
    report = json.loads((comparison.work / f"out/{engines[0].name}-{subject}-0/reports/evaluation.report.json").read_text())
    print(f"{subject}: {report['comparison']['kind']} {report['comparison']['value']}, {report['verdict']}")
    for engine in engines:
        times = " ".join(f"{taken:.1f}" for taken in seconds[engine.name])
        print(f"  {engine.name}: median {statistics.median(seconds[engine.name]):.1f} s ({times})")
    for role in ("baseline", "subject"):
        print(f"  {role} observation {first[f'providers/{role}/runtime-scoring.observation.json']}")
    same = True
    for key, pack in packs.items():
        different = sorted(name for name in first | pack if first.get(name) != pack.get(name))
        expected = (0 if report["verdict"] == "pass" else 7, report["verdict"])
        if different or codes[key][:2] != expected:
            print(f"  {key}: DIFFERENT: {different}, verify {codes[key]}")
            same = False
    if same:
        print(f"  {len(first)} files are the same in {len(packs)} packs; verify {codes[engines[0].name, 0][0]}")
    return same


def failures(comparison, engines, subject):
    """A worker that fails: the package stops the other one, and says why."""
    cause = "strict HF live tokenizer does not match tokenizer_metadata_sha256"
    answered = True
    for engine in engines:
        code, printed, _ = comparison.evaluate(
            engine, subject, f"out/{engine.name}-wrong", {"tokenizer_metadata_sha256": "5" * 64}
        )
        answers = code == 2 and "subject worker exited with status 2: " in printed and cause in printed
        print(f"wrong tokenizer on {engine.name}: {'as expected' if answers else f'exit code {code}: {printed}'}", flush=True)
        answered &= answers
    return answered


def docker(comparison, engine, config, subject):
    """The other program of this engine, and the image by its id: the observations are those of a run by `podman` and its manifest."""
    other = Engine(f"{engine.name}-docker", engine.directory, "docker")
    output = f"out/{other.name}-{subject}"
    code, printed, _ = comparison.evaluate(other, subject, output, image=config)
    if code != 0:
        sys.exit(f"{subject} on {other.name}: evaluate ended with {code}: {printed}")
    name = "providers/{}/runtime-scoring.observation.json"
    first, second = (digests(comparison.work / path) for path in (f"out/{engine.name}-{subject}-0", output))
    same = all(first[name.format(role)] == second[name.format(role)] for role in ("baseline", "subject"))
    code, _, errors = comparison.verify(output, comparison.anchors(output))
    print(f"docker, image by its id: {'the same observations' if same else 'DIFFERENT'}, verify {code} {errors or ''}".rstrip())
    return same and code in (0, 7)


def main():
    image, models, texts, work, sides, repeats, records, *engines = sys.argv[1:]
    engines = [Engine(*engine.split("=", 1)) for engine in engines]
    images = {engine.name: engine.images(image) for engine in engines}
    if len(set(images.values())) != 1:
        sys.exit(f"the engines have different images: {images}")
    manifest, config = images[engines[0].name]
    comparison = Comparison(Path(work), Path(models), Path(texts), sides.split(","), engines[0], manifest)
    subjects = comparison.subjects
    # It also reads the files of the image for the first time.
    answered = failures(comparison, engines, subjects[0])
    # Not `all`: each is to be seen.
    answered &= sum(compare(comparison, engines, subject, int(repeats)) for subject in subjects) == len(subjects)
    answered &= docker(comparison, engines[0], config, subjects[0])
    print(f"denied system calls: {denied(records)}")
    sys.exit(not answered)


if __name__ == "__main__":
    main()
