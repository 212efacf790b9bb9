#!/usr/bin/env bash
# Renew requirements-stock.lock (needs uv): the libraries with which a stock Immich ML 2.7.5 reads a request. The tests ask
# them what stock would make of it. The first three are stock's own pins, the others what there was when it came out.
set -euo pipefail
cd "$(dirname "$0")/.."
UV=${UV:-uv}
export UV_CUSTOM_COMPILE_COMMAND="scripts/lock_stock.sh"
"$UV" pip compile - --python-version 3.12 --python-platform x86_64-manylinux_2_28 --exclude-newer 2026-04-25T00:00:00Z \
    --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --quiet -o requirements-stock.lock <<'END'
fastapi==0.136.1
starlette==0.50.0
python-multipart==0.0.26
httptools
orjson
uvicorn
END
