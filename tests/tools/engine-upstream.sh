#!/usr/bin/env bash
# InvarLock's Python package 0.12.1, with PyTorch, as a `delegate` image, on `runtime engine` and, where it can run containers, on Podman. Not part of `make test`:
# the image has 2.5 GB, and three copies of it are made below ROOT.
#
#   tests/tools/engine-upstream.sh INVARLOCK ROOT [MODELS PRESET BASELINE,SUBJECT…]
#
# Podman's `--init` needs catatonit. ROOT/root is made by images/recipes/python/root.sh where it is not there, and kept. Without MODELS, the checkpoints of demo/ are compared.
set -euo pipefail
invarlock=$(realpath "${1:?usage: engine-upstream.sh INVARLOCK ROOT [MODELS PRESET BASELINE,SUBJECT…]}")
root=${2:?usage: engine-upstream.sh INVARLOCK ROOT [MODELS PRESET BASELINE,SUBJECT…]}
here=$(cd "$(dirname "$0")/../.." && pwd)
models=${3:-$here/demo} preset=${4:-$here/demo/preset.yaml} sides=${5:-baseline,baseline,healthy,damaged}
python=$here/target/upstream/0.12.1/bin/python
[ -x "$python" ] || { echo "engine-upstream: run tests/tools/upstream-venvs.sh first" >&2; exit 2; }
mkdir -p "$root"
root=$(realpath "$root")
export INVARLOCK_STORE=$root/store

[ -d "$root/root" ] || bash "$here/images/recipes/python/root.sh" "$root/root" 0.12.1
"$invarlock" runtime image inspect invarlock-python:0.12.1 >/dev/null 2>&1 ||
    bash "$here/images/recipes/python/image.sh" "$invarlock" "$root/root" 0.12.1

work=$(mktemp -d "$root/work-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
"$invarlock" runtime engine install "$work/engine" --record "$work/records"
mkdir "$work/files"
engines=("invarlock=$work/engine")

# Podman gets the same files and the same configuration, below ROOT.
podman=$(command -v podman || true)
if [ -n "$podman" ] && [ "$(id -u)" = 0 ]; then
    store=(--root "$root/podman" --runroot "$root/podman-run")
    mkdir -p "$work/podman"
    # crun refuses machines with both versions of cgroups, and limits above those of this process are not Podman's to give.
    printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n[engine]\ncgroup_manager = "cgroupfs"\n' >"$work/podman/conf"
    printf '#!/bin/sh\nexport CONTAINERS_CONF=%q\nexec unshare --mount -- sh -c "umount /sys/fs/cgroup/unified 2>/dev/null; exec \\"\\$@\\"" sh %q %s "$@"\n' \
        "$work/podman/conf" "$podman" "$(printf '%q ' "${store[@]}")" >"$work/podman/podman"
    chmod 755 "$work/podman/podman"
    "$work/podman/podman" image exists invarlock-python:0.12.1 || {
        tar -C "$root/root" -c . | "$work/podman/podman" import --quiet \
            --change ENV=PATH=/opt/invarlock/0.12.1/bin:/usr/bin:/bin --change ENV=HOME=/tmp --change ENV=PYTHONDONTWRITEBYTECODE=1 \
            --change ENV=OPENBLAS_NUM_THREADS=1 --change 'ENTRYPOINT ["/opt/invarlock/0.12.1/bin/python","-m","invarlock"]' \
            - invarlock-python:0.12.1
    }
    engines+=("podman=$work/podman")
else
    echo "engine-upstream: without Podman: it is not installed, or this is not root"
fi

"$python" "$here/tests/tools/engine_upstream.py" invarlock-python:0.12.1 "$models" "$preset" "$work/files" "$sides" "${engines[@]}" "delegate=$invarlock"
echo "records: $(ls "$work/records" | wc -l)"
