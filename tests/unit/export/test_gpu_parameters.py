"""What a config says about a network on a GPU."""

from __future__ import annotations

import re

from immich_pipelines import shapes
from immich_triton.export import gpu_parameters
from immich_triton.export.gpu_parameters import MIB, WORKSPACE


def test_the_memory_holds_the_weights_of_every_session_and_one_computation() -> None:
    few = gpu_parameters.gpu_parameters("clip_visual", [(1, 3)], 100 * MIB)
    more = gpu_parameters.gpu_parameters("clip_visual", [(1, 3), (8, 3)], 100 * MIB)
    assert int(few["gpu_mem_limit"]) == (125 + WORKSPACE["clip_visual"]) * MIB
    assert int(more["gpu_mem_limit"]) - int(few["gpu_mem_limit"]) == 125 * MIB


def test_it_is_written_as_a_config_is_read() -> None:
    parameters = gpu_parameters.gpu_parameters("face_recognizer", [(1, 3), (8, 3)], 1)
    text = gpu_parameters.COMMENT + gpu_parameters.lines(parameters)
    assert shapes.in_config(text) == ((1, 3), (8, 3))
    assert dict(re.findall(r'key: "(\w+)", value: \{ string_value: "([^"]*)" \}', text)) == parameters
    assert parameters["cudnn_conv_algo_search"] == "1"


def test_what_a_session_does_is_recorded_but_for_clip() -> None:
    recorded = {
        kind for kind in WORKSPACE if gpu_parameters.gpu_parameters(kind, [(1, 3)], 1).get("cuda_graphs") == "1"
    }
    assert recorded == {"ocr_detector", "ocr_recognizer", "face_detector", "face_recognizer"}
