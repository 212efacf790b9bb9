"""Check a model repository before it is deployed: one line per finding, exit code 1 when one is an error.

Looks at the files alone, no server runs: whether every config parses with Triton's own schema and fits the tensors of
its ONNX file, whether each route names models that are there and vectors of the size that Immich expects, and whether
the hashes and fingerprints of weights fit each other.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from immich_triton.core.paths import MODELS
from immich_triton.server.repository_check import check


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models",
        nargs="?",
        type=Path,
        default=MODELS,
        metavar="DIR",
        help="the model repository (default: triton_models)",
    )
    options = parser.parse_args(arguments)
    failed = False
    for finding in check(options.models):
        failed |= finding.level == "error"
        print(finding, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
