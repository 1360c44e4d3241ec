#!/usr/bin/env bash
# House rules that no linter knows: unsafe only in named modules, no untrusted path joins, files of a size one can read.
set -euo pipefail
cd "$(dirname "$0")/../.."
status=0
fail() { echo "house rule: $*" >&2; status=1; }

# `unsafe` lives only in small sys-like modules.
while IFS= read -r file; do
    case $file in
        */sys.rs | */sys/*.rs | */gemm.rs | */mmap.rs | */simd.rs) ;;
        *) fail "unsafe outside a sys-like module: $file" ;;
    esac
done < <(git ls-files '*.rs' | xargs grep -lE '\bunsafe (\{|fn|impl|extern)|unsafe\(' || true)

# Crates that handle paths from outside never join them.
if git ls-files 'images/src/*.rs' 'evidence/src/*.rs' | xargs grep -nE '\.join\(' | grep -vE 'join\("|handles?\.|\.join\(\)|// join: ' >&2; then
    fail "a path is joined in a room that handles untrusted paths (say why with '// join: …' if it is trusted)"
fi

# No file over 600 lines without its tests.
while IFS= read -r file; do
    lines=$(sed '/^#\[cfg(test)\]/,$d' "$file" | wc -l)
    [ "$lines" -le 600 ] || fail "$file has $lines lines without tests"
done < <(git ls-files '*.rs')

# Nothing in the tree names a package registry's host.
if git grep -nIE 'https?://(static\.|index\.)?crates\.io|https?://pypi\.org|https?://deb\.debian\.org' -- ':!Cargo.lock' ':!tests/house-rules.sh' >&2; then
    fail "a registry host is named"
fi
exit $status
