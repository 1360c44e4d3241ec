#!/bin/bash
# Makes a root directory with upstream's Python package in it: Debian packages (Python, PyTorch) and wheels, each by its digest.
#
#   images/recipes/python/root.sh ROOT [VERSION…]        versions: 0.8.0 0.12.1 0.17.1
#
# ROOT must not be there. It gets a virtual environment a version in /opt/invarlock/VERSION. What makes an image of it is in image.sh.
#
# Needs mmdebstrap and a Python that has pip and venv. It does not need root where the caller has subordinate ids (/etc/subuid).
# The wheels are the same for everyone. The Debian packages are what MIRROR has today; name a snapshot to fix them, too.
set -euo pipefail

root=${1:?usage: root.sh ROOT [VERSION…]}
shift
versions=("${@:-0.8.0}")
here=$(cd "$(dirname "$0")" && pwd)
suite=trixie
packages=python3,python3-venv,python3-torch,libopenblas0-pthread
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}

[ ! -e "$root" ] || { echo "root.sh: $root is there already; remove it or name another directory" >&2; exit 2; }
[ "$(uname -m)" = x86_64 ] || { echo "root.sh: the wheels listed are for x86_64" >&2; exit 3; }
command -v mmdebstrap >/dev/null || { echo "root.sh: needs mmdebstrap (apt-get install mmdebstrap)" >&2; exit 2; }
for version in "${versions[@]}"; do
    [ -f "$here/invarlock-$version.txt" ] || { echo "root.sh: no wheel of version $version is listed in $here" >&2; exit 2; }
done

work=$(mktemp -d "${TMPDIR:-/var/tmp}/invarlock-root-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
mkdir "$work/opt" "$work/opt/wheels"
cp "$here/requirements.txt" "$here"/invarlock-*.txt "$work/opt/wheels/"

# Only this reaches a network besides mmdebstrap; what is installed below comes from the directory.
for list in requirements "${versions[@]/#/invarlock-}"; do
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --require-hashes --only-binary :all: --implementation cp \
        --python-version 3.13 --abi cp313 --abi abi3 --abi none \
        --platform manylinux_2_34_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_26_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_12_x86_64 \
        --platform manylinux_2_5_x86_64 --platform manylinux1_x86_64 \
        -r "$here/$list.txt" -d "$work/opt/wheels"
done

cat >"$work/opt/wheels/install.sh" <<'INSTALL'
set -eu
for version; do
    python3 -m venv --system-site-packages "/opt/invarlock/$version"
    for list in requirements "invarlock-$version"; do
        "/opt/invarlock/$version/bin/pip" install --quiet --no-compile --no-index --find-links /opt/wheels --no-deps --require-hashes \
            --ignore-installed --disable-pip-version-check --root-user-action ignore -r "/opt/wheels/$list.txt"
    done
done
rm -rf /opt/wheels
# Compiled code that is not compared with the time of its source: times are not what an image keeps, and no run can write a new one.
find /usr/lib/python3* /opt/invarlock -name __pycache__ -prune -exec rm -rf {} +
find /usr/lib/python3* /opt/invarlock -name '*.py' -print0 | sort -z | xargs -0 -n 2000 -P "$(nproc)" \
    python3 -X utf8 -c 'import py_compile, sys
for name in sys.argv[1:]:
    try:
        py_compile.compile(name, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except (py_compile.PyCompileError, ValueError):
        pass  # templates and tests of syntax errors'
# Debian describes its PyTorch in an egg-info. 0.17.1 identifies PyTorch by the METADATA and the RECORD of a wheel.
python3 - /usr/lib/python3/dist-packages <<'RECORD'
import base64, csv, hashlib, sys
from pathlib import Path

packages = Path(sys.argv[1])
egg = next(packages.glob("torch-*.egg-info"))
wheel = egg.with_suffix(".dist-info")
egg.rename(wheel)
(wheel / "PKG-INFO").rename(wheel / "METADATA")
tops = [packages / name for name in (wheel / "top_level.txt").read_text().split()]
files = [path for top in [*tops, wheel] for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
with open(wheel / "RECORD", "w", newline="") as record:
    lines = csv.writer(record, lineterminator="\n")
    for path in sorted(path for path in files if "__pycache__" not in path.parts):
        data = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.writerow((path.relative_to(packages), f"sha256={digest}", len(data)))
    lines.writerow((wheel.relative_to(packages) / "RECORD", "", ""))
RECORD
# What differs from one making to the next, and what no run reads.
rm -rf /var/cache/apt /var/cache/debconf /var/cache/ldconfig /var/lib/apt/lists /var/log/apt
rm -f /etc/resolv.conf /etc/hostname /etc/machine-id /var/log/*.log
INSTALL

# Root of this user namespace may be an unprivileged user outside, so the file is passed in and not fetched.
tar -C "$work" --owner=0 --group=0 --numeric-owner -cf "$work/opt.tar" opt
mmdebstrap --quiet --variant=minbase --architectures=amd64 --format=tar --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="tar-in '$work/opt.tar' /" \
    --customize-hook="chroot \"\$1\" sh /opt/wheels/install.sh ${versions[*]}" \
    "$suite" - ${MIRROR:+"$MIRROR"} >"$work/root.tar"

# The caller owns everything; there are no devices.
mkdir -p "$root"
tar -C "$root" --no-same-owner --exclude='./dev/*' -xpf "$work/root.tar"
