"""An edited config is completed with the outputs that a newer pipeline gives; by the next start: test_renewal.py."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from immich_triton.core.paths import MODELS
from immich_triton.export.kept_config import complete
from immich_triton.server.triton_models import PIPELINES

SHIPPED = b"""
output [
  { name: "A", data_type: TYPE_FP32, dims: [ 1 ] },
  { name: "B", data_type: TYPE_INT64, dims: [ 1 ] }
]
"""
B = b'output [ { name: "B", data_type: TYPE_INT64, dims: [ 1 ] } ]\n'


@pytest.mark.parametrize("name", PIPELINES)
def test_all_outputs_of_a_pipeline_are_found_in_its_config(name: str) -> None:
    shipped = (MODELS / name / "config.pbtxt").read_bytes()
    assert complete(shipped, shipped) == shipped
    edited = "# caf\xe9\n".encode("latin-1")
    completed = complete(edited, shipped)
    assert completed.startswith(edited)
    parsed = text_format.Parse(completed.decode("latin-1"), model_config_pb2.ModelConfig())
    assert list(parsed.output) == list(text_format.Parse(shipped.decode(), model_config_pb2.ModelConfig()).output)


@pytest.mark.parametrize(
    "kept",
    [
        b'output { name: "A" dims: 1 } # or "B"?\n',
        b"output { name: 'A' dims: 1 }\n",
        b'output [ { name: "A" } ]\n# output [ { name: "B" } ]\n',
        b'name: "#"  output { name: "A" }\n',
        b'output { name: "A" }\n#B.\n',
    ],
)
def test_only_what_is_missing_is_appended(kept: bytes) -> None:
    assert complete(kept, SHIPPED) == kept + B


def test_the_last_line_gets_its_end() -> None:
    assert complete(b'output { name: "A" }', SHIPPED) == b'output { name: "A" }\n' + B


@pytest.mark.parametrize("kept", [SHIPPED, b"output { name: 'B' } output { name: \"A\" }", b'x: "A" y: "B"'])
def test_where_nothing_is_missing_nothing_changes(kept: bytes) -> None:
    assert complete(kept, SHIPPED) is kept
