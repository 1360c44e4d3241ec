#!/bin/sh
# Creates the upstream Python verifiers that the parity tests compare with:
#
#   ${CARGO_TARGET_DIR:-target}/upstream/<version>/bin/invarlock
#
# one virtual environment for each version, without PyTorch (verification and
# 0.17.1's publication do not need it), upstream/dsse, which reads signed envelopes, and upstream/kubernetes, which validates Jobs. Run it from the root of the repository. Existing environments are
# kept. If one cannot be created, the script prints `skipped: ...` and exits 0,
# and the tests that need it skip too: upstream is a reference, not a dependency.
set -eu

versions="0.8.0 0.12.1 0.17.1"
root="${CARGO_TARGET_DIR:-target}/upstream"

installed() {
    "$1/bin/invarlock" --version 2>/dev/null | grep -qE "InvarLock $2( |\$)"
}

new_enough() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null
}

find_python() {
    for python in python3.12 python3.13 python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3; do
        if new_enough "$python"; then
            echo "$python"
            return
        fi
    done
    return 1
}

dsse="securesystemslib==1.6.0 cryptography==50.0.2 in-toto-attestation==0.9.3"

has_dsse() {
    "$root/dsse/bin/python" -c 'import securesystemslib.dsse, in_toto_attestation.v1.statement' 2>/dev/null
}

kubernetes="kubernetes-validate==1.37.0"

has_kubernetes() {
    "$root/kubernetes/bin/kubernetes-validate" --version >/dev/null 2>&1
}

# environment NAME REQUIREMENT...
environment() {
    name=$1
    shift
    rm -rf "${root:?}/$name"
    if ! "$python" -m venv "$root/$name" ||
        ! "$root/$name/bin/pip" install --quiet --disable-pip-version-check "$@" >"$root/$name.log" 2>&1; then
        rm -rf "${root:?}/$name"
        echo "skipped: pip cannot install $* (see $root/$name.log)"
        exit 0
    fi
    rm -f "$root/$name.log"
}

missing=""
for version in $versions; do
    installed "$root/$version" "$version" || missing="$missing $version"
done
if [ -z "$missing" ] && has_dsse && has_kubernetes; then
    echo "upstream verifiers are in $root"
    exit 0
fi

if ! python=$(find_python); then
    echo "skipped: no Python >= 3.12"
    exit 0
fi

mkdir -p "$root"
for version in $missing; do
    # Created in its final place, because a virtual environment cannot be moved.
    # An incomplete one fails `installed` and is created again the next time.
    rm -rf "${root:?}/$version"
    if ! "$python" -m venv "$root/$version" ||
        ! "$root/$version/bin/pip" install --quiet --disable-pip-version-check \
            "invarlock==$version" >"$root/$version.log" 2>&1; then
        rm -rf "${root:?}/$version"
        echo "skipped: pip cannot install invarlock $version (see $root/$version.log)"
        exit 0
    fi
    rm -f "$root/$version.log"
    if ! installed "$root/$version" "$version"; then
        echo "$root/$version: invarlock does not start" >&2
        exit 1
    fi
done
# shellcheck disable=SC2086 # three requirements
has_dsse || environment dsse $dsse
has_kubernetes || environment kubernetes "$kubernetes"
echo "upstream verifiers are in $root"
