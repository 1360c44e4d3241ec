#!/usr/bin/env bash
# Smoke tests of the front door on the demo checkpoints: `default` = a default evaluate runs in a container;
# `front-door` = evaluate, verify, report html.
set -euo pipefail
invarlock=${1:?usage: tests/tools/smoke.sh PATH-OF-INVARLOCK default|front-door}
demo=$(cd "$(dirname "$0")/../../demo" && pwd)
out=$(mktemp -d)
trap 'rm -rf -- "$out"' EXIT

"$invarlock" evaluate --baseline "$demo/baseline" --subject "$demo/healthy" --preset "$demo/preset.yaml" --profile ci \
    --out "$out/runs" --report-out "$out/eval" --quiet
grep -q '"execution_mode": "container"' "$out/eval/runtime.manifest.json"
[ -s "$out/eval/evaluation.report.json" ]
case ${2:?default or front-door} in
    default) ;;
    front-door)
        "$invarlock" verify --json "$out/eval" | grep -q '"format_version": *"verify-v1"'
        "$invarlock" report html -i "$out/eval" -o "$out/report.html" --force
        grep -q '<html' "$out/report.html"
        ;;
    *) echo "smoke: unknown test $2" >&2; exit 2 ;;
esac
echo "smoke: $2 ok"
