#!/usr/bin/env bash
# Renew the hashed lock files from pyproject.toml. Three sets, each a superset of the one before, and one aside:
#   requirements-gateway.lock  the gateway alone, any platform, Triton elsewhere
#   requirements-web.lock      the gateway, and what the site in front of the Immich server needs
#   requirements.lock          with the embedded Triton, Linux x86_64
#   requirements-dev.lock      with what checks the project
set -euo pipefail
cd "$(dirname "$0")/.."
UV=${UV:-uv}
export UV_CUSTOM_COMPILE_COMMAND="make lock"
common=(--python-version 3.12 --generate-hashes --no-emit-index-url --no-emit-find-links --quiet)
linux=(--python-platform x86_64-manylinux_2_35)
"$UV" pip compile pyproject.toml "${common[@]}" "${linux[@]}" --extra triton -o requirements.lock
"$UV" pip compile pyproject.toml "${common[@]}" "${linux[@]}" --extra triton --extra web --group dev -c requirements.lock -o requirements-dev.lock
"$UV" pip compile pyproject.toml "${common[@]}" --universal -c requirements.lock -o requirements-gateway.lock
"$UV" pip compile pyproject.toml "${common[@]}" --universal --extra web -c requirements-gateway.lock -o requirements-web.lock
