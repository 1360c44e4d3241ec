#!/bin/bash
# Makes the image invarlock-python:VERSION with upstream's Python package in it: a root directory (root.sh), and the image of that.
#
#   images/recipes/python/image.sh INVARLOCK ROOT [VERSION…]
#
# ROOT is made where it is not there, and kept. The first VERSION (0.8.0) is the one whose command line the image runs.
set -euo pipefail

invarlock=${1:?usage: image.sh INVARLOCK ROOT [VERSION…]}
root=${2:?usage: image.sh INVARLOCK ROOT [VERSION…]}
shift 2
version=${1:-0.8.0}
[ -d "$root" ] || bash "$(dirname "$0")/root.sh" "$root" "$@"

"$invarlock" runtime image build --from "$root" --name "invarlock-python:$version" \
    --label org.invarlock.speaks=delegate \
    --env "PATH=/opt/invarlock/$version/bin:/usr/bin:/bin" \
    --env HOME=/tmp --env PYTHONDONTWRITEBYTECODE=1 --env OPENBLAS_NUM_THREADS=1 \
    --entrypoint "/opt/invarlock/$version/bin/python -m invarlock" --workdir /

# It starts, and finds its parts.
"$invarlock" runtime run --entrypoint "/opt/invarlock/$version/bin/python" "invarlock-python:$version" -- -c \
    'import datasets, safetensors, torch, transformers; print("runtime image imports ok:", torch.__version__, transformers.__version__)'
"$invarlock" runtime run "invarlock-python:$version" -- --version
