"""mt-photos-ai's wire format, compared with recorded shapes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from mt_photos_shapes import SHAPES, differences

from immich_triton.core.errors import ProtocolError
from immich_triton.core.json_text import dump
from immich_triton.mt_photos import protocol
from immich_triton.triton.client import ServerFault

SIZE = {"imageWidth": 200, "imageHeight": 100}


def sent(body: object) -> Any:
    """What a client reads."""
    return json.loads(dump(body))


def lines(*boxes: list[float]) -> dict[str, Any]:
    count = len(boxes)
    found = {
        "box": np.array(boxes, np.float32).reshape(-1),
        "boxScore": np.full(count, 0.9, np.float32),
        "text": ["小票"] * count,
        "textScore": np.full(count, 0.984, np.float32),
    }
    return {"ocr": found, **SIZE}


def test_text_comes_with_upright_boxes_in_pixels_around_all_four_corners() -> None:
    slanted = [0.1, 0.2, 0.5, 0.1, 0.55, 0.3, 0.15, 0.4]
    answer = sent(protocol.ocr(lines(slanted)))
    assert answer == {
        "result": {
            "texts": ["小票"],
            "scores": ["0.98"],
            "boxes": [{"x": "20.0", "y": "10.0", "width": "90.0", "height": "30.0"}],
        }
    }
    assert differences(answer, SHAPES["ocr"]) == []


def test_without_text_there_are_three_empty_lists() -> None:
    assert sent(protocol.ocr(lines())) == SHAPES["ocr_without_text"]


def test_a_vector_comes_as_strings_with_16_decimals() -> None:
    answer = sent(protocol.clip({"clip": "[0.012345679,-1e-9]"}))
    assert answer == {"result": ["0.0123456790000000", "-0.0000000010000000"]}
    assert differences(answer, SHAPES["clip"]) == []


def test_normalised_vectors_have_the_same_cosines_as_raw_ones() -> None:
    """The old service gives CLIP vectors as the model makes them, ours have length 1.

    A client that compares by cosine, also with vectors of the same model from the old service, sees no difference.
    """
    random = np.random.default_rng(1)
    raw = random.normal(size=(20, 512)) * random.uniform(1, 30, size=(20, 1))
    ours = np.array(
        [
            [float(number) for number in protocol.clip({"clip": json.dumps(list(protocol.normalised(one)))})["result"]]
            for one in raw
        ]
    )

    def cosines(left: Any, right: Any) -> Any:
        return left @ right.T / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(right, axis=1)

    expected = cosines(raw, raw)
    assert np.abs(cosines(ours, ours) - expected).max() < 1e-12
    assert np.abs(cosines(ours, raw) - expected).max() < 1e-12  # an index that the old service began
    assert np.abs(ours @ ours.T - expected).max() < 1e-12  # the dot product is the cosine now
    assert np.abs(raw @ raw.T - expected).max() > 1  # which it was not


def test_faces_have_embeddings_of_length_1_and_boxes_of_whole_pixels() -> None:
    box = {"x1": 10.4, "y1": 8.6, "x2": 30.4, "y2": 40.6}
    fragment = {"facial-recognition": [{"boundingBox": box, "embedding": "[3.0,4.0]", "score": np.float32(0.875)}]}
    answer = sent(protocol.faces(fragment, "buffalo_l"))
    assert answer == {
        "detector_backend": "insightface",
        "recognition_model": "buffalo_l",
        "result": [
            {
                "embedding": [0.6, 0.8],
                "facial_area": {"x": 10, "y": 9, "w": 20, "h": 32},
                "face_confidence": 0.875,
            }
        ],
    }
    assert differences(answer, SHAPES["faces"]) == []
    assert sent(protocol.faces({"facial-recognition": []}, "buffalo_l"))["result"] == []


def test_a_face_without_a_direction_is_a_fault_of_the_server() -> None:
    with pytest.raises(ServerFault, match="zero all over"):
        protocol.normalised(np.zeros(512))


def form(*parts: tuple[str, str]) -> tuple[str, bytes]:
    body = b"".join(
        f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n".encode() for head, value in parts
    )
    return "multipart/form-data; boundary=b", body + b"--b--\r\n"


def test_the_file_of_a_form_is_taken() -> None:
    content_type, body = form(('name="other"', "1"), ('name="file"; filename="a.jpg"', "bytes"))
    assert protocol.image_of(content_type, body, max_parts=10) == b"bytes"


@pytest.mark.parametrize(
    ("content_type", "body", "status", "detail"),
    [
        (*form(), 422, SHAPES["missing_file"]["detail"]),
        (*form(('name="image"; filename="a"', "x")), 422, SHAPES["missing_file"]["detail"]),
        ("text/plain", b"x", 422, SHAPES["missing_file"]["detail"]),
        ("multipart/form-data", b"x", 400, "Missing boundary in multipart."),
        ("multipart/form-data; boundary=b", b"--b\r\nnonsense", 400, "There was an error parsing the body"),
    ],
)
def test_a_form_without_a_file_is_refused_as_fastapi_does(
    content_type: str, body: bytes, status: int, detail: object
) -> None:
    with pytest.raises(ProtocolError) as refused:
        protocol.image_of(content_type, body, max_parts=10)
    assert (refused.value.status, sent(refused.value.detail)) == (status, detail)


def test_a_field_is_no_file() -> None:
    with pytest.raises(ProtocolError) as refused:
        protocol.image_of(*form(('name="file"', "x")), max_parts=10)
    assert refused.value.status == 422
    assert sent(refused.value.detail)[0]["loc"] == ["body", "file"]


def test_the_text_of_a_query_is_taken() -> None:
    assert protocol.text_of('{"text": "夜景"}'.encode()) == "夜景"
    assert protocol.text_of(b'{"text": ""}') == ""


@pytest.mark.parametrize(
    ("body", "type_"), [(b"", "json_invalid"), (b"{}", "missing"), (b"[]", "missing"), (b'{"text": 1}', "string_type")]
)
def test_a_query_without_a_text_is_refused(body: bytes, type_: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        protocol.text_of(body)
    assert refused.value.status == 422
    assert sent(refused.value.detail)[0]["type"] == type_


def test_an_image_with_a_side_of_more_than_10000_pixels_is_too_large() -> None:
    assert not protocol.is_too_large(10_000, 10_000)
    assert protocol.is_too_large(1, 10_001)
    assert differences(sent(protocol.nothing(protocol.TOO_LARGE)), SHAPES["unreadable"]) == []
