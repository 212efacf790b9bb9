"""Restore a model repository from a file that immich-triton models archive wrote.

Everything is verified against the hashes in the file before the first model appears; a damaged or foreign file changes
nothing. A running immich-triton picks the models up within seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from immich_triton.cli import models_command
from immich_triton.export.archive import restore


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = models_command.parser(__doc__, "the archive")
    parser.add_argument("--replace", action="store_true", help="put the archive's models in the place of those there")
    options = parser.parse_args(arguments)
    return models_command.attempt(
        "models restore", lambda: _restore(options.models, options.file, replace=options.replace)
    )


def _restore(models: Path, file: Path, *, replace: bool) -> str:
    written = restore(file, models, replace=replace)
    return (
        f"{models}: restored {', '.join(written) or 'nothing, all pipelines are there already'}\n"
        f"check it with: immich-triton check-models {models}"
    )


if __name__ == "__main__":
    sys.exit(main())
