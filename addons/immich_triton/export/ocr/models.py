"""The OCR networks as Triton models: rebuilt graphs, and their configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import onnx

from immich_pipelines import ocr_ctc, ocr_variants
from immich_pipelines import shapes as shape_table
from immich_pipelines.cpus import available_cpus, pair_bits
from immich_pipelines.ocr_batches import HEIGHT, Limits
from immich_triton.export import onnx_graph
from immich_triton.export.gpu_parameters import gpu_parameters
from immich_triton.export.ocr import chinese_variants, ctc_head, dbnet_head, dbnet_neck, gates, graph, means, pixels

DETECTOR: Final = "ocr_det"
RECOGNIZER: Final = "ocr_rec"

SOURCES: Final = (
    __file__,
    *(module.__file__ for module in (ctc_head, dbnet_head, dbnet_neck, gates, graph, means, pixels)),
    *chinese_variants.SOURCES,
)
"""The files that determine what is written."""


@dataclass(frozen=True)
class Placement:
    """Where and how often a network runs: *instances* copies of it with *threads* each; *gpu*: on every GPU.

    *precision* is what OpenVINO computes in on the CPU, ``bf16`` or ``f32``; a CPU without bf16 units takes f32. With
    ``int8`` some layers are in int8, and the rest in f32: OpenVINO makes bytes of floats alone, and would
    turn bf16 into these and around before each layer. On a GPU it is that of the weights, ``f32`` or ``f16``.
    """

    instances: int
    threads: int
    gpu: bool = False
    precision: str = "bf16"

    @property
    def int8(self) -> bool:
        """Whether layers are put into int8."""
        return self.precision == "int8"

    @property
    def half(self) -> bool:
        """Whether the weights are halved."""
        return self.gpu and self.precision == "f16"


_FLOATS: Final = "BGR, -1..1 (pixel / 127.5 - 1), channels first"

PRECISIONS: Final = MappingProxyType({False: ("int8", "bf16", "f32"), True: ("f32", "f16")})
"""What there is on a CPU, and on a GPU."""


def default_precision(*, gpu: bool = False) -> str:
    """Return the precision that is the fastest here of those that read at least as well as stock Immich ML does.

    int8 is for every x86 CPU. On others the backend computes it in floats.
    """
    if gpu:
        return "f32"
    return "int8" if pair_bits() else "bf16"


def placements(*, precision: str | None = None, gpu: bool = False) -> tuple[Placement, Placement]:
    """Return where detector and recogniser run by default: on the CPUs that this process may use, or on the GPUs.

    Of the recogniser a copy for each CPU, up to four: it gets several batches of a page at a time, and two threads on
    one take a tenth longer than one on each of two. Of the detector half as many with twice the threads: that costs
    a twentieth when many pages come at once, takes half the time for one, and spares a copy of 150 MB and more. With
    int8, the default on x86, the detector has it only where the CPU does not compute in bf16. Raises ValueError for a
    *precision* that is not to be had there.
    """
    precision = precision or default_precision(gpu=gpu)
    if precision not in PRECISIONS[gpu]:
        where, choices = ("a GPU", "with --gpu") if gpu else ("a CPU", "without --gpu")
        raise ValueError(f"{precision} is not for {where}; {choices} --precision is {', '.join(PRECISIONS[gpu])}")
    if gpu:
        return Placement(1, 0, gpu=True, precision=precision), Placement(1, 0, gpu=True, precision=precision)
    cpus = available_cpus()

    def placement(copies: int, precision: str) -> Placement:
        return Placement(copies, cpus // copies, precision=precision)

    # A detector in bf16 is faster than one that is in int8 in part, and in both it is less sure of what is text.
    detector = "bf16" if precision == "int8" and computes_bf16() else precision
    return placement(min(4, max(1, cpus // 2)), detector), placement(min(4, cpus), precision)


def default_version(*, gpu: bool = False) -> str:
    """Return the PP-OCR version that is the fastest here of those that read at least as well as stock Immich ML does.

    PP-OCRv6's recogniser reads better than v5's (figures: docs/benchmarks.md) and is made of large 1x1 convolutions:
    in int8 or bf16 it is the faster one too, in f32 it takes a third longer.
    """
    return "v5+v6" if gpu or pair_bits() or computes_bf16() else "v5"


def computes_bf16() -> bool:
    """Return whether OpenVINO would compute in bf16 on this CPU."""
    import openvino  # takes a second, which not every caller has to spend

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def build_detector(source: Path, target: Path, *, gpu: bool = False) -> None:
    """Write the text detector: ``x`` uint8 [N, H, W, 3], pages in RGB → ``text`` float32 [N, 1, H, W], 0..1.

    On a CPU N is 1, and the neck is rewritten; for a *gpu* it stays.
    """
    model = onnx.load(source)
    onnx_graph.rename_input(model, "x", ["batch", 3, "height", "width"])
    onnx_graph.rename_output(model, "text", ["batch", 1, "height", "width"])
    dbnet_head.fold_head(model)
    if not gpu:
        gates.spell_out_gates(model)
        dbnet_neck.fold_neck(model)
        means.pool_in_steps(model)
    pixels.take_pixels(model, "x")
    onnx.checker.check_model(model)
    onnx.save(model, target)


def build_recognizer(source: Path, dictionary: Path | None, target: Path, *, gpu: bool = False) -> list[str]:
    """Write the recogniser: ``x`` float32 [N, 3, 48, W] → what `recognizer_config` says of its outputs.

    *dictionary* (one character a line) becomes the metadata ``character``, unless the file carries its own; the
    metadata ``simplified``, ``traditional`` and ``alike`` are the rows of `chinese_variants` for it. For a *gpu* its
    gates stay. Returns the character of every class: blank first, space last, as RapidOCR counts them.
    """
    model = onnx.load(source)
    if dictionary is not None:
        onnx_graph.set_metadata(model, "character", dictionary.read_text(encoding="utf-8").rstrip("\r\n"))
    onnx_graph.rename_input(model, "x", ["batch", 3, 48, "width"])
    characters = ["blank", *onnx_graph.metadata(model)["character"].split("\n"), " "]
    if len(characters) != (classes := onnx_graph.classes_of(model)):
        raise onnx_graph.GraphError(f"the dictionary has {len(characters)} entries, the network {classes} classes")
    if not gpu:
        gates.spell_out_gates(model)
    ctc_head.fold_ctc(model, "indices", "scores")
    rows = (*chinese_variants.of_one_script(characters), chinese_variants.alike(characters))
    for key, some in zip(ocr_ctc.VARIANTS, rows, strict=True):
        onnx_graph.set_metadata(model, key, "\n".join(some))
    table = ocr_variants.Table.of(characters, *rows)
    ctc_head.add_alternatives(model, "indices", "alternatives", table.others)
    onnx.checker.check_model(model)
    onnx.save(model, target)
    return characters


def detector_config(title: str, placement: Placement, weights: int) -> str:
    """Return the ``config.pbtxt`` of the text detector, whose file has *weights* bytes."""
    return _config(
        DETECTOR,
        f"{title}, text detection (DBNet).\n"
        "Input: the pixels of a page, RGB, sides multiples of 32.\n"
        "Output: how likely each pixel is text, 0..1, in the size of the input.",
        ("TYPE_UINT8", "[ -1, -1, 3 ]"),
        {"text": ("TYPE_FP32", "[ 1, -1, -1 ]")},
        placement,
        # A CPU is no faster on two pages at a time, nor a GPU: only fuller, 200 MB a page.
        max_batch=1,
        on_gpu=gpu_parameters("ocr_detector", shape_table.detector_shapes(), weights),
    )


def recognizer_config(title: str, placement: Placement, weights: int) -> str:
    """Return the ``config.pbtxt`` of the recogniser, whose file has *weights* bytes."""
    return _config(
        RECOGNIZER,
        f"{title}, text recognition (SVTR, CTC), one line of text an image.\n"
        f"Input: {_FLOATS}, 48 pixels high; 0 where a line is shorter.\n"
        "Output: for each step of about 8 pixels the most likely class and its probability, 0..1. Class 0 is blank,\n"
        "the others are the lines of the metadata `character` in the ONNX file, then the space. And how likely are\n"
        "the space, the variants of the class in the other Chinese script and the usual character that it looks like:\n"
        "metadata `simplified`, `traditional`, `alike`.",
        ("TYPE_FP32", "[ 3, 48, -1 ]"),
        {
            "indices": ("TYPE_INT32", "[ -1 ]"),
            "scores": ("TYPE_FP32", "[ -1 ]"),
            "alternatives": ("TYPE_FP32", f"[ -1, {1 + ocr_variants.MOST} ]"),
        },
        placement,
        # The pipeline sends as many lines at once. On a CPU a batch is no faster either, but for the calls that it
        # saves; and OpenVINO prepares kernels for every batch size and width.
        max_batch=max(shape[0] for shape in shape_table.recognizer_shapes()) if placement.gpu else Limits.lines,
        on_gpu=gpu_parameters("ocr_recognizer", shape_table.recognizer_shapes(), weights),
        # 25 kernels for each width and number of lines: the 40 that are in use stay prepared, 4 MB each.
        cpu_parameters={"shape_cache": "1000", "largest_run": str(3 * HEIGHT * Limits.columns)},
    )


def _config(
    name: str,
    comment: str,
    image: tuple[str, str],
    outputs: Mapping[str, tuple[str, str]],
    placement: Placement,
    *,
    max_batch: int,
    on_gpu: Mapping[str, str],
    cpu_parameters: Mapping[str, str] = MappingProxyType({}),
) -> str:
    parameters = (
        on_gpu
        if placement.gpu
        else {
            # Only the embedded backend knows these keys but the third; Triton's C++ backend ignores them.
            "embedded_accelerator": "openvino",
            "inference_precision": "f32" if placement.int8 else placement.precision,
            "intra_op_thread_count": str(placement.threads),
            **cpu_parameters,
        }
    )
    if placement.int8:
        comment += "\nSome of its layers are in int8."
    if placement.half:
        comment += "\nWeights, and what is computed, in half precision."
    lines = [*(f"# {line}" for line in comment.split("\n")), "# Written by immich-triton export ocr."]
    lines += [f'name: "{name}"', 'backend: "onnxruntime"', f"max_batch_size: {max_batch}"]
    lines += [f'input [ {{ name: "x" data_type: {image[0]} dims: {image[1]} }} ]', "output ["]
    lines += [
        ",\n".join(f'  {{ name: "{key}" data_type: {kind} dims: {size} }}' for key, (kind, size) in outputs.items())
    ]
    lines += ["]"]
    if placement.gpu and max_batch > 1:
        lines += ["dynamic_batching { }"]
    elif not placement.gpu:
        lines += ["# No dynamic_batching: a larger batch is no faster on a CPU, and Triton's batcher spins beside it."]
    kind = "KIND_GPU" if placement.gpu else "KIND_CPU"
    lines += [f"instance_group [ {{ kind: {kind} count: {placement.instances} }} ]"]
    lines += [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()]
    return "\n".join(lines) + "\n"
