#!/usr/bin/env bash
# House rules that no lint knows: the size of files, and words and references that the documents must not contain.
set -euo pipefail
cd "$(dirname "$0")/../.."
status=0
fail() { echo "house rule: $*" >&2; status=1; }

# No file over 600 lines without its tests.
while IFS= read -r file; do
    lines=$(sed '/^#\[cfg(test)\]/,$d' "$file" | wc -l)
    [ "$lines" -le 600 ] || fail "$file has $lines lines without tests"
done < <(git ls-files '*.rs')

# Plain English: these words have a plainer equivalent..
words='whoever|somebody|mended|bills of materials'
if git grep -nwiE "$words" -- ':!LICENSE' ':!tests/fixtures' ':!tests/tools/house-rules.sh' >&2; then
    fail "a word with a plainer equivalent"
fi

# Documents and comments refer only to documents of this repository.
if git grep -nE 'design (section|§)|\.\./shared|[^a-z-]spec/[a-z]+\.md' -- ':!tests/tools/house-rules.sh' >&2; then
    fail "a reference to a document outside the repository"
fi
exit $status
