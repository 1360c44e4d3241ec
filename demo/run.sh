#!/usr/bin/env bash
# `make demo`: compare the baseline with a healthy and a damaged subject in containers, verify, render HTML, print a table.
set -uo pipefail
invarlock=${1:?usage: demo/run.sh PATH-OF-INVARLOCK}
demo=$(cd "$(dirname "$0")" && pwd)
out=${DEMO_OUT:-demo-out}
rows=()

seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f s", b - a }'; }
fail() { echo "demo: $*" >&2; exit 1; }

doctor=$("$invarlock" doctor 2>&1) || {
    printf '%s\n' "$doctor"
    fail "this machine cannot isolate runs yet; see the output of doctor above"
}

# side NAME EXPECTED_EXIT_CODE [OPTION_OF_EVALUATE...]
side() {
    local name=$1 expected=$2 dir=$out/$1 t0 t1 t2 t3 code verdict
    shift 2
    t0=$(date +%s.%N)
    "$invarlock" evaluate --baseline "$demo/baseline" --subject "$demo/$name" --preset "$demo/preset.yaml" --profile ci \
        --out "$dir/runs" --report-out "$dir" "$@"
    code=$?
    [ "$code" = "$expected" ] || fail "evaluate $name: exit code $code, expected $expected"
    t1=$(date +%s.%N)
    "$invarlock" verify "$dir"
    code=$?
    [ "$code" = "$expected" ] || fail "verify $name: exit code $code, expected $expected"
    t2=$(date +%s.%N)
    "$invarlock" report html -i "$dir" -o "$dir/report.html" --force >/dev/null || fail "report html $name"
    t3=$(date +%s.%N)
    verdict=PASS
    [ "$expected" = 0 ] || verdict=FAIL
    rows+=("$name|$verdict|$(seconds "$t0" "$t1")|$(seconds "$t1" "$t2")|$(seconds "$t2" "$t3")|$dir/report.html")
    echo
}

mkdir -p "$out" || fail "cannot create $out"
echo "== baseline against a healthy subject (int8)"
side healthy 0
measured=$(ls -d "$out"/healthy/runs/source/*/report.json | tail -n 1)
echo "== the same measured baseline, reused, against a damaged subject (noise in one layer)"
side damaged 1 --baseline-report "$measured"

printf '%-10s %-8s %-10s %-8s %-8s %s\n' SUBJECT VERDICT EVALUATE VERIFY HTML FILES
for row in "${rows[@]}"; do
    IFS='|' read -r name verdict evaluate verify html files <<<"$row"
    printf '%-10s %-8s %-10s %-8s %-8s %s\n' "$name" "$verdict" "$evaluate" "$verify" "$html" "$files"
done
