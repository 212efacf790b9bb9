#!/usr/bin/env python3
"""Export a Chinese-CLIP model to Triton, and route an Immich model name to it.

The weights are downloaded once (or taken from --weights). PyTorch runs in an environment of its own, which the first
run makes (Python 3.11, 5 GB, in the user's cache). The ONNX models are compared with the original; unless each
embedding is equal, nothing is written.

    immich-triton export clip ViT-B-16
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from immich_triton.core.paths import MODELS
from immich_triton.export.clip import environment as clip_environment
from immich_triton.export.clip import repository as clip_repository
from immich_triton.export.clip.job import NOT_EQUAL, Job
from immich_triton.export.clip.models import CLIP_MODELS, ClipModel
from immich_triton.export.download import DownloadError, fetch, file_sha256
from immich_triton.export.repository import workshop


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    model = CLIP_MODELS[options.model]
    try:
        names = clip_repository.check_names(model, options.names or [model.immich_name], options.models)
        return _export(model, names, options)
    except (clip_repository.ClipNameError, clip_environment.EnvironmentSetupError, DownloadError, OSError) as error:
        print(f"export clip: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=CLIP_MODELS, help="which of the five Chinese-CLIP models")
    parser.add_argument(
        "--as",
        dest="names",
        metavar="NAME",
        action="append",
        help="Immich model name to answer for, of the same vector size (default: that of the same architecture); "
        "may be given more than once",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        help="of the weights in the exported model (default: that of an earlier export of this model, whose "
        "vectors are in the index; else fp16 with --gpu and fp32 without)",
    )
    parser.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help="model repository to write into")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (.pt) to use instead of downloading")
    source.add_argument("--weights-url", metavar="URL", help="download the checkpoint from a mirror")
    source.add_argument(
        "--random-weights", type=int, nargs="?", const=0, metavar="SEED", help="for tests: no download, no use either"
    )
    parser.add_argument("--gpu", action="store_true", help="place the encoders on every GPU instead of the CPU")
    parser.add_argument(
        "--external-data",
        action="store_true",
        help="keep the weights of the text encoder too in a file beside the model, as is done anyway above 2 GiB",
    )
    return parser


def _export(model: ClipModel, names: list[str], options: argparse.Namespace) -> int:
    untrained = options.random_weights is not None
    source = None if untrained else _weights(model, options.weights, options.weights_url)
    identity = f"random {options.random_weights}" if source is None else source["sha256"]
    precision = options.precision or clip_repository.exported_precision(options.models, model)
    precision = precision or ("fp16" if options.gpu else "fp32")
    fingerprint = _fingerprint(f"{model.name} {precision} {identity}")
    # On the file system of the target: the encoders may be too large for /tmp.
    with workshop(options.models, "export-clip") as folder:
        job = Job(
            model=model.name,
            folder=str(folder),
            precision=precision,
            fingerprint=fingerprint,
            weights=None if source is None else source["file"],
            seed=options.random_weights or 0,
            external_data=options.external_data,
            external_visual=True,
        )
        (folder / "job.json").write_text(json.dumps(asdict(job)), encoding="utf-8")
        try:
            clip_environment.run("immich_triton.export.clip.torch_export", str(folder / "job.json"))
        except subprocess.CalledProcessError as error:
            if error.returncode == NOT_EQUAL:
                _print_parity(model, json.loads((folder / "report.json").read_text(encoding="utf-8"))["parity"])
            print("export clip: the export failed; nothing was written", file=sys.stderr)
            return 1
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        record = {
            "model": model.name,
            "precision": precision,
            "names": names,
            "untrained": untrained,
            "weights": source
            or {"sha256": report["weights_sha256"], "basis": f"random, seed {options.random_weights}"},
            "fingerprint": fingerprint,
            "dimension": model.dimension,
            "image_size": model.image_size,
            "exported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **{key: report[key] for key in ("context_length", "opset", "versions", "parity")},
        }
        clip_repository.write(options.models, model, folder, names, record, gpu=options.gpu)
    _print_parity(model, report["parity"])
    _print_next(options.models, model, names, untrained=untrained)
    return 0


def _weights(model: ClipModel, given: Path | None, mirror: str | None) -> dict[str, str]:
    if given:
        if not given.is_file():
            raise FileNotFoundError(f"{given} does not exist")
        return {"sha256": file_sha256(given), "file": str(given.resolve()), "basis": "given by --weights"}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "immich-triton" / "weights"
    url = mirror or model.url
    # No source that we could check states a SHA-256 of these files: see `fetch` for what is done instead.
    done = fetch(
        url,
        cache / model.file,
        sha256=None,
        ledger=cache / "sha256.json",
        offline_hint=f"Without a network, fetch {model.url} elsewhere and give it with --weights FILE.",
    )
    return {"sha256": done.sha256, "file": str(cache / model.file), "url": url, "basis": done.basis}


def _fingerprint(identity: str) -> int:
    """Return a number that tells these weights from others; it comes out of the encoder with every embedding.

    31 bits, because OpenVINO computes with 32 even where the graph says 64 (measured).
    """
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4]) >> 1


def _print_parity(model: ClipModel, parity: dict[str, Any]) -> None:
    table = Table(title=f"{model.name}: ONNX against PyTorch (each cosine must be at least {parity['limit']})")
    for column in ("input", "batch", "items", "lowest cosine", "mean cosine", "largest difference"):
        table.add_column(column, justify="right")
    for row in parity["rows"]:
        table.add_row(
            row["kind"],
            str(row["batch"]),
            str(row["items"]),
            f"{row['lowest_cosine']:.7f}",
            f"{row['mean_cosine']:.7f}",
            f"{row['max_difference']:.1e}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"image transform: largest difference {parity['transform_max_difference']:.1e} "
        f"(limit {parity['transform_limit']:.0e}); texts with other tokens: {parity['texts_with_other_tokens']}",
        highlight=False,
        soft_wrap=True,
    )


def _print_next(models: Path, model: ClipModel, names: list[str], *, untrained: bool) -> None:
    print(f"wrote {models / model.visual}\nwrote {models / model.textual}")
    print(f"route: clip {', '.join(names)} -> {model.name}")
    if untrained:
        print("random weights: the gateway refuses this route unless immich_allow_untrained is set")
    print(
        "Next: choose the name in Immich (Administration, Settings, Machine Learning, Smart Search), then run "
        "immich-triton reindex; docs/clip.md says why. immich-triton run and immich-triton triton load the model by "
        "themselves; any other Triton has to be restarted."
    )


if __name__ == "__main__":
    sys.exit(main())
