#!/usr/bin/env bash
# InvarLock's Python package, with PyTorch in an image, on `runtime engine` and, where it can run containers, on Podman. Not part of `make test`: the image
# has 2.7 GB, and three copies of it are made below ROOT.
#
#   tests/tools/engine-upstream.sh INVARLOCK ROOT VERSION [MODELS DATA BASELINE,SUBJECT…]
#
# VERSION 0.12.1: the whole command in one container, also as a `delegate` image; DATA is a preset, with valid.jsonl beside it.
# VERSION 0.17.1: `evaluate request.yaml` with a container for each side; DATA is a file of texts or windows. REPEATS (3) evaluations of each subject.
#
# Podman's `--init` needs catatonit. ROOT/root is made by images/recipes/python/root.sh where it is not there, and kept. Without MODELS, the checkpoints of demo/ are compared.
set -euo pipefail
usage="usage: engine-upstream.sh INVARLOCK ROOT VERSION [MODELS DATA BASELINE,SUBJECT…]"
invarlock=$(realpath "${1:?$usage}")
root=${2:?$usage} version=${3:?$usage}
here=$(cd "$(dirname "$0")/../.." && pwd)
case $version in
0.12.1) data=preset.yaml ;;
0.17.1) data=valid.jsonl ;;
*) echo "engine-upstream: VERSION is 0.12.1 or 0.17.1" >&2 && exit 2 ;;
esac
models=${4:-$here/demo} data=${5:-$here/demo/$data} sides=${6:-baseline,baseline,healthy,damaged}
image=invarlock-python:$version
python=${CARGO_TARGET_DIR:-$here/target}/upstream/$version/bin/python
[ -x "$python" ] || { echo "engine-upstream: run tests/tools/upstream-venvs.sh first" >&2; exit 2; }
mkdir -p "$root"
root=$(realpath "$root")
export INVARLOCK_STORE=$root/store

[ -d "$root/root" ] || bash "$here/images/recipes/python/root.sh" "$root/root" 0.12.1 0.17.1
"$invarlock" runtime image inspect "$image" >/dev/null 2>&1 ||
    bash "$here/images/recipes/python/image.sh" "$invarlock" "$root/root" "$version"

work=$(mktemp -d "$root/work-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
"$invarlock" runtime engine install "$work/engine" --record "$work/records"
mkdir "$work/files"
engines=("invarlock=$work/engine")

# Podman gets the same image, by its digest, in a store below ROOT.
podman=$(command -v podman || true)
if [ -n "$podman" ] && [ "$(id -u)" = 0 ]; then
    store=(--root "$root/podman" --runroot "$root/podman-run")
    mkdir -p "$work/podman"
    # crun refuses machines with both versions of cgroups, and limits above those of this process are not Podman's to give.
    printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n[engine]\ncgroup_manager = "cgroupfs"\n' >"$work/podman/conf"
    printf '#!/bin/sh\nexport CONTAINERS_CONF=%q\nexec unshare --mount -- sh -c "umount /sys/fs/cgroup/unified 2>/dev/null; exec \\"\\$@\\"" sh %q %s "$@"\n' \
        "$work/podman/conf" "$podman" "$(printf '%q ' "${store[@]}")" >"$work/podman/podman"
    chmod 755 "$work/podman/podman"
    id_in() { "$work/$1/podman" image inspect "$image" --format '{{.Id}}' 2>/dev/null || true; }
    if [ "$(id_in podman)" != "$(id_in engine)" ]; then
        "$invarlock" runtime image export "$image" "oci:$work/layout:$version" >/dev/null
        # Podman takes the path for a part of the name, which must be in lower case.
        pulled=$(cd "$work" && podman/podman pull --quiet "oci:layout:$version")
        "$work/podman/podman" tag "$pulled" "$image"
        rm -rf --one-file-system "$work/layout"
    fi
    engines+=("podman=$work/podman")
else
    echo "engine-upstream: without Podman: it is not installed, or this is not root"
fi

if [ "$version" = 0.12.1 ]; then
    "$python" "$here/tests/tools/engine_upstream.py" "$image" "$models" "$data" "$work/files" "$sides" "${engines[@]}" "delegate=$invarlock"
else
    "$python" "$here/tests/tools/engine_upstream_workers.py" "$image" "$models" "$data" "$work/files" "$sides" "${REPEATS:-3}" "$work/records" "${engines[@]}"
fi
echo "records: $(ls "$work/records" | wc -l)"
