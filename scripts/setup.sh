#!/usr/bin/env bash
# setup.sh VENV LOCK: create VENV with Python 3.12 and install LOCK into it. Run again, it only installs what changed.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
lock=$2

is_312() { "$@" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.12 python3 python; do
        if is_312 "$candidate"; then echo "$candidate"; return; fi
    done
    if command -v uv >/dev/null; then uv python find 3.12 2>/dev/null && return; fi
    cat >&2 <<'END'
setup: no Python 3.12 found. mitmproxy 12 needs Python >= 3.12 and rapidocr-onnxruntime needs < 3.13.
Install one of these, then run the same command again:
    pyenv install 3.12          (https://github.com/pyenv/pyenv)
    uv python install 3.12      (https://docs.astral.sh/uv)
    apt install python3.12 python3.12-venv libpython3.12    (Ubuntu 24.04)
or name an interpreter: make setup PYTHON=/path/to/python3.12
END
    return 1
}

if is_312 "$venv/bin/python"; then python="$venv/bin/python"; else python=$(find_python); rm -rf "$venv"; fi
PYTHONPATH=addons exec "$python" -m immich_triton setup --environment "$venv" --lock "$lock" --editable .
