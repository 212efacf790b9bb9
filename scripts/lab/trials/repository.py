"""A copy of the user's model repository, for trials that break what is in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from immich_triton.ml.routes import load_routes


class Repository:
    """*original*, as hard links where that is possible, in *folder*."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.folder = folder
        self._original = original
        shutil.copytree(original, folder, copy_function=_link_or_copy)

    @property
    def clip_dimension(self) -> int:
        """The length of an embedding of the first CLIP route; 0 without one."""
        return next((route.dimension for route in load_routes(self.folder).routes if route.task == "clip"), 0)

    def replace(self, path: str, content: bytes) -> None:
        """Put *content* in the place of a file; the original stays as it is."""
        target = self.folder / path
        fresh = target.with_name(f".{target.name}.new")
        fresh.write_bytes(content)
        fresh.replace(target)

    def restore(self, path: str) -> None:
        """Bring a file back."""
        self.replace(path, (self._original / path).read_bytes())


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)
