"""Restore a model repository from a file that immich-triton models archive wrote.

Everything is verified against the hashes in the file before the first model appears; a damaged or foreign file changes
nothing. A running immich-triton picks the models up within seconds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from immich_triton.core.paths import MODELS
from immich_triton.export.archive import ArchiveError, restore


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the archive")
    parser.add_argument(
        "--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)"
    )
    parser.add_argument("--replace", action="store_true", help="put the archive's models in the place of those there")
    options = parser.parse_args(arguments)
    try:
        written = restore(options.file, options.models, replace=options.replace)
    except (ArchiveError, OSError) as error:
        print(f"models restore: {error}", file=sys.stderr)
        return 1
    print(f"{options.models}: restored {', '.join(written) or 'nothing, all pipelines are there already'}")
    print(f"check it with: immich-triton check-models {options.models}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
