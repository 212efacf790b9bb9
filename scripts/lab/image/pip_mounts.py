#!/usr/bin/env python3
"""Print the options that let pip in a container reach what pip on this machine reaches, one a line, for ``buildah``.

``pip_mounts.py FILE`` writes pip's configuration, that of the environment included, to FILE. It is mounted as
``/etc/pip.conf``; the folders and certificates that it names are mounted below ``/mnt`` and named as they lie there.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

MOUNTED: Final = Path("/mnt/pip")
FILE_URL: Final = "file://"
INDEXES: Final = ("index-url", "extra-index-url")
"""The pages of an index link to files beside the folder of the index."""
FROM_ENVIRONMENT: Final = {"cert": "SSL_CERT_FILE", "proxy": "HTTPS_PROXY"}
"""What pip obeys although it is no setting of pip; a setting comes first."""


def main(arguments: list[str]) -> int:
    """Run the program with the one argument FILE; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    file = Path(arguments[0]).resolve()
    configuration, mounts = translate(settings())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(configuration, encoding="utf-8")
    for source, target in [(file, Path("/etc/pip.conf")), *mounts]:
        print(f"--volume={source}:{target}:ro")
    return 0


def settings() -> dict[str, dict[str, str]]:
    """Return pip's settings by section; those of the environment (PIP_…) come last and win, as in pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for line in sorted(listed, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        found["global" if section == ":env:" else section][key] = ast.literal_eval(value)
    for key, variable in FROM_ENVIRONMENT.items():
        if said := os.environ.get(variable) or os.environ.get(variable.lower()):
            found["global"].setdefault(key, said)
    return found


def translate(found: dict[str, dict[str, str]]) -> tuple[str, list[tuple[Path, Path]]]:
    """Return the text of a pip.conf with *found* as it is named inside, and what to mount where."""
    lines, mounts = [], dict[Path, Path]()
    for section, pairs in found.items():
        lines.append(f"[{section}]")
        for key, value in pairs.items():
            words = [_inside(word, mounts, is_index=key in INDEXES) for word in value.split()]
            lines.append(f"{key} = {' '.join(words)}")
    return "\n".join(lines) + "\n", list(mounts.items())


def _inside(word: str, mounts: dict[Path, Path], *, is_index: bool) -> str:
    """Return *word* as it is named inside; a path of this machine is added to *mounts*."""
    scheme, text = (FILE_URL, word.removeprefix(FILE_URL)) if word.startswith(FILE_URL) else ("", word)
    path = Path(text)
    if not path.is_absolute() or not path.exists():
        return word
    source = path.parent if is_index else path
    target = mounts.setdefault(source, MOUNTED / str(len(mounts)))
    return f"{scheme}{target / path.name if is_index else target}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
