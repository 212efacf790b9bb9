#!/usr/bin/env bash
# Renew requirements-export.lock (needs uv): what immich-triton export clip runs in, apart from the gateway's environment.
set -euo pipefail
cd "$(dirname "$0")/.."
UV=${UV:-uv}
export UV_CUSTOM_COMPILE_COMMAND="scripts/lock_export.sh"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/export.in" <<'END'
cn-clip==1.6.0
numpy
onnx
onnxruntime
pillow
torch==2.14.1
torchvision==0.29.1
END
# cn_clip uses lmdb and timm for training only; torch uses the compiler `triton` and cuda-bindings for torch.compile only.
cat > "$folder/overrides.txt" <<'END'
lmdb ; python_version < '3'
timm ; python_version < '3'
triton ; python_version < '3'
cuda-bindings ; python_version < '3'
END
"$UV" pip compile "$folder/export.in" --override "$folder/overrides.txt" --python-version 3.11 \
    --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate --no-emit-index-url \
    --no-emit-find-links --quiet -o requirements-export.lock
