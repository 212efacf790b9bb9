#!/usr/bin/env python3
"""Put an InsightFace model pack into the Triton model repository, and the route that makes the gateway use it.

The pack is downloaded once (or taken from --archive). Its two models get a batch axis and take pixels as they are;
they are compared with the originals, and unless boxes, landmarks and embeddings are equal, nothing is written.

    immich-triton export faces buffalo_l --accept-license
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from immich_triton.core.paths import MODELS
from immich_triton.export.download import DownloadError, fetch, file_sha256
from immich_triton.export.faces.check import CheckError, Differences
from immich_triton.export.faces.packs import LICENCE, PACKS, Pack, PackError, unpack
from immich_triton.export.faces.writer import export
from immich_triton.export.onnx_graph import GraphError

LICENCE_NOT_ACCEPTED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    options = _parser().parse_args(arguments)
    pack = PACKS[options.pack]
    console = Console(highlight=False, soft_wrap=True)
    console.print(LICENCE, markup=False)
    if not options.accept_license:
        print("export faces: give --accept-license if you accept this; nothing was downloaded", file=sys.stderr)
        return LICENCE_NOT_ACCEPTED
    try:
        archive, source = _archive(pack, options.archive, options.sha256)
        source |= {
            "licence": "InsightFace, non-commercial research only; accepted with --accept-license",
            "exported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with tempfile.TemporaryDirectory() as temporary:
            detector, recognizer = unpack(archive, pack, Path(temporary))
            differences = export(pack.name, detector, recognizer, options.models, [pack.name], source, gpu=options.gpu)
    except (DownloadError, PackError, GraphError, CheckError, OSError) as error:
        print(f"export faces: {error}\nexport faces: nothing was written", file=sys.stderr)
        return 1
    _print_differences(console, differences)
    console.print(
        f"{options.models}: face_det_{pack.name}, face_rec_{pack.name}. The gateway answers face requests for "
        f"{pack.name}; what Immich has stored stays valid, because the weights are the same.",
        markup=False,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pack", nargs="?", choices=PACKS, default="buffalo_l", help="as in Immich's settings (default: %(default)s)"
    )
    parser.add_argument(
        "--accept-license", action="store_true", help="you have read InsightFace's terms for its models and accept them"
    )
    parser.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help="model repository to write into")
    parser.add_argument("--gpu", action="store_true", help="place both models on every GPU instead of the CPU")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="the pack's ZIP file, instead of downloading it")
    parser.add_argument(
        "--sha256",
        metavar="HEX",
        help="SHA-256 that --archive must have, if it is not the published file (default: that of the published file)",
    )
    return parser


def _archive(pack: Pack, given: Path | None, sha256: str | None) -> tuple[Path, dict[str, str]]:
    """Return the checked archive, and what the record says about where it comes from."""
    if given is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "immich-triton" / "weights"
        target = cache / f"{pack.name}.zip"
        hint = "Without a network, fetch it elsewhere and give it with --archive FILE."
        done = fetch(pack.url, target, sha256=pack.sha256, ledger=cache / "sha256.json", offline_hint=hint)
        return target, {"archive": pack.url, "archive_sha256": done.sha256}
    digest = file_sha256(given)
    expected = (sha256 or pack.sha256).lower()
    if digest != expected:
        raise PackError(
            f"{given} has SHA-256 {digest}, expected {expected}. If you trust this file although it is not the "
            f"published {pack.name}.zip, give --sha256 {digest}"
        )
    return given, {"archive": given.name, "archive_sha256": digest}


def _print_differences(console: Console, differences: Differences) -> None:
    table = Table(title="Largest difference between the exported models and the originals")
    for title in ("faces", "box", "landmark", "score", "embedding", "lowest cosine"):
        table.add_column(title, justify="right")
    table.add_row(
        str(differences.faces),
        f"{differences.box:.1g} px",
        f"{differences.landmark:.1g} px",
        f"{differences.score:.1g}",
        f"{differences.embedding:.1g}",
        f"{differences.cosine:.7f}",
    )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
