#!/usr/bin/env python3
"""Stays for one release, for what still starts this file: the command is ``immich-triton run`` now."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "addons"))

from immich_triton.cli.main import main

RENAMED = {"--web": "--inspect", "--web-port": "--inspect-port"}

if __name__ == "__main__":
    print("scripts/run.py is immich-triton run now, and goes away with the next release", file=sys.stderr)
    given = [(option.partition("=")) for option in sys.argv[1:]]
    sys.exit(main(["run", *(RENAMED.get(name, name) + equals + value for name, equals, value in given)]))
