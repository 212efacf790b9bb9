#!/usr/bin/env bash
# Renew the hashed lock files from pyproject.toml. Three sets, each a superset of the one before, and two aside:
#   requirements-gateway.lock  the gateway alone, any platform, Triton elsewhere
#   requirements-web.lock      the gateway, and what the site in front of the Immich server needs
#   requirements.lock          with the embedded Triton, Linux x86_64
#   requirements-gpu.lock      the same with ONNX Runtime for CUDA, and CUDA's libraries
#   requirements-dev.lock      with what checks the project
set -euo pipefail
cd "$(dirname "$0")/.."
UV=${UV:-uv}
export UV_CUSTOM_COMPILE_COMMAND="make lock"
common=(--python-version 3.12 --generate-hashes --no-emit-index-url --no-emit-find-links --quiet)
linux=(--python-platform x86_64-manylinux_2_35)
"$UV" pip compile pyproject.toml "${common[@]}" "${linux[@]}" --group triton -o requirements.lock
"$UV" pip compile pyproject.toml "${common[@]}" "${linux[@]}" --group triton --group dev --extra web -c requirements.lock -o requirements-dev.lock
"$UV" pip compile pyproject.toml "${common[@]}" --universal -c requirements.lock -o requirements-gateway.lock
"$UV" pip compile pyproject.toml "${common[@]}" --universal --extra web -c requirements-gateway.lock -o requirements-web.lock
# Both builds of ONNX Runtime provide one module: the other one replaces it.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '%s\n' "opencv-python ; python_version < '3'" "onnxruntime ; python_version < '3'" > "$folder/overrides.txt"
version=$(sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' requirements.lock)
echo "onnxruntime-gpu[cuda,cudnn]==$version" > "$folder/gpu.in"
"$UV" pip compile pyproject.toml "$folder/gpu.in" "${common[@]}" "${linux[@]}" --group triton -c <(grep -v "^onnxruntime==" requirements.lock | grep -E "^[a-z].*==" | sed 's/ .*//') \
    --override "$folder/overrides.txt" --no-annotate -o requirements-gpu.lock
