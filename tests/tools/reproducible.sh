#!/bin/bash
# Builds the evaluator twice, in two directories with target directories of their own, and the default image of each: the same bytes, the
# same digest, or exit 1. What is built is the last commit. Takes as long as two release builds.
#
#   tests/tools/reproducible.sh INVARLOCK
set -euo pipefail

invarlock=$(realpath "${1:?usage: reproducible.sh INVARLOCK}")
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/invarlock-reproducible-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
commit=$(git -C "$root" rev-parse HEAD)
unset SOURCE_DATE_EPOCH CARGO_TARGET_DIR

for name in one another/place; do
    mkdir -p "$work/$name/tree"
    git -C "$root" archive "$commit" | tar -C "$work/$name/tree" -x
    # Also Cargo's own directory has another name the second time.
    ln -s "${CARGO_HOME:-$HOME/.cargo}" "$work/$name/crates"
    CARGO_HOME="$work/$name/crates" make -s -C "$work/$name/tree" CARGO_TARGET_DIR="$work/$name/target" evaluator
    built=("$work/$name"/target/*/release/invarlock-evaluator)
    mkdir -m 0755 "$work/$name/bin"
    cp "${built[0]}" "$work/$name/bin/"
    rm -rf "$work/$name/target"
    INVARLOCK_STORE="$work/$name/store" "$invarlock" runtime image build --evaluator "$work/$name/bin/invarlock-evaluator" |
        tee "$work/$name/digest"
    INVARLOCK_STORE="$work/$name/store" "$invarlock" runtime image sbom >"$work/$name/bom.json"
done
cmp "$work/one/bin/invarlock-evaluator" "$work/another/place/bin/invarlock-evaluator"
cmp "$work/one/digest" "$work/another/place/digest"
cmp "$work/one/bom.json" "$work/another/place/bom.json"
grep -q '"purl": "pkg:cargo/tokenizers@' "$work/one/bom.json"
sha256sum "$work/one/bin/invarlock-evaluator" | cut -d' ' -f1
echo "program, image and SBOM are identical in both builds"
