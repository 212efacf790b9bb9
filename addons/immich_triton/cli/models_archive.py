"""Write a model repository into one file, to be restored on another machine.

The file is a tar that begins with the SHA-256 of everything in it: models, routes, records and pipelines. A name that
ends with .gz compresses it, which weights do not reward. Mind their licence before you give it to others.
"""

from __future__ import annotations

import sys
from pathlib import Path

from immich_triton.cli import models_command
from immich_triton.export.archive import archive, describe


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = models_command.parser(__doc__, "the archive to write, e.g. models.tar; it appears whole")
    options = parser.parse_args(arguments)
    return models_command.attempt("models archive", lambda: _write(options.models, options.file))


def _write(models: Path, file: Path) -> str:
    hashes = archive(models, file)
    size = file.stat().st_size
    return (
        f"{file}: {', '.join(describe(hashes))} ({len(hashes)} files, {size / 1e6:.1f} MB)\n"
        f"restore it with: immich-triton models restore {file.name}"
    )


if __name__ == "__main__":
    sys.exit(main())
