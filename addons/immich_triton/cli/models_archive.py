"""Write a model repository into one file, to be restored on another machine.

The file is a tar that begins with the SHA-256 of everything in it: models, routes, records and pipelines. A name that
ends with .gz compresses it, which weights do not reward. Mind their licence before you give it to others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from immich_triton.core.paths import MODELS
from immich_triton.export.archive import ArchiveError, archive, describe


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the archive to write, e.g. models.tar; it appears whole")
    parser.add_argument(
        "--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)"
    )
    options = parser.parse_args(arguments)
    try:
        hashes = archive(options.models, options.file)
        size = options.file.stat().st_size
    except (ArchiveError, OSError) as error:
        print(f"models archive: {error}", file=sys.stderr)
        return 1
    print(f"{options.file}: {', '.join(describe(hashes))} ({len(hashes)} files, {size / 1e6:.1f} MB)")
    print(f"restore it with: immich-triton models restore {options.file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
