#!/bin/bash
# Makes the image invarlock-python:VERSION with upstream's Python package in it: a root directory (root.sh), and the image of that.
#
#   images/recipes/python/image.sh INVARLOCK ROOT [VERSION…]
#
# ROOT is made where it is not there, and kept. The first VERSION (0.8.0) is the one whose command line the image runs. 0.8.0 and 0.12.1 run whole in a
# container (`delegate`). Of 0.17.1 only the workers do, which its command line on the host starts.
set -euo pipefail

invarlock=${1:?usage: image.sh INVARLOCK ROOT [VERSION…]}
root=${2:?usage: image.sh INVARLOCK ROOT [VERSION…]}
shift 2
version=${1:-0.8.0}
[ -d "$root" ] || bash "$(dirname "$0")/root.sh" "$root" "$@"
[ -d "$root/opt/invarlock/$version" ] || { echo "image.sh: $root was made without version $version; remove it, or name another directory" >&2; exit 2; }

label=(--label org.invarlock.speaks=delegate)
[ "$version" != 0.17.1 ] || label=()
"$invarlock" runtime image build --from "$root" --name "invarlock-python:$version" "${label[@]}" \
    --env "PATH=/opt/invarlock/$version/bin:/usr/bin:/bin" \
    --env HOME=/tmp --env PYTHONDONTWRITEBYTECODE=1 --env OPENBLAS_NUM_THREADS=1 \
    --entrypoint "/opt/invarlock/$version/bin/python -m invarlock" --workdir /

# It starts, and finds its parts.
"$invarlock" runtime run --entrypoint "/opt/invarlock/$version/bin/python" "invarlock-python:$version" -- -c \
    'import datasets, safetensors, torch, transformers; print("runtime image imports ok:", torch.__version__, transformers.__version__)'
"$invarlock" runtime run "invarlock-python:$version" -- --version
