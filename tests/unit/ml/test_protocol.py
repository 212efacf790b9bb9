"""The wire protocol of ``/predict``: what is read, what is refused with which words, what is written."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import DATA
from requests_toolbelt import MultipartEncoder

from immich_triton.core.errors import ProtocolError
from immich_triton.core.json_text import dump
from immich_triton.ml.forms import Part
from immich_triton.ml.protocol import (
    Form,
    build_form,
    is_exact,
    merge,
    parse_entries,
    parse_form,
    parse_task,
    require_payload,
)

WIRE = DATA / "wire"


def refusal(content_type: str, body: bytes) -> tuple[int, object]:
    """Parse as the gateway does; return status and detail of the refusal."""
    with pytest.raises(ProtocolError) as caught:
        read(content_type, body)
    return caught.value.status, caught.value.detail


def read(content_type: str, body: bytes) -> None:
    """Go through the steps of the gateway."""
    form = parse_form(content_type, body)
    for task, types in parse_entries(form.entries).items():
        parse_task(task, types)
    require_payload(form)


def multipart(**fields: Any) -> tuple[str, bytes]:
    encoder = MultipartEncoder(fields)
    return encoder.content_type, encoder.to_string()


@pytest.mark.parametrize(
    ("name", "task", "has_image"),
    [
        ("clip_visual", "clip", True),
        ("clip_textual", "clip", False),
        ("faces", "facial-recognition", True),
        ("ocr", "ocr", True),
        ("multi_clip_ocr", "ocr", True),
        ("unknown_task", "pet-detection", True),
    ],
)
def test_reads_what_immichs_own_client_sends(name: str, task: str, has_image: bool) -> None:
    headers = json.loads((WIRE / f"{name}.headers.json").read_text())["headers"]
    body = (WIRE / f"{name}.body").read_bytes()
    form = parse_form(headers["content-type"], body)
    assert task in parse_entries(form.entries)
    assert (form.image is not None) is has_image
    if form.image is not None:
        assert form.image.startswith(b"\xff\xd8")
        assert form.image.endswith(b"\xff\xd9")
        assert form.image in body
    else:
        assert form.text


def test_a_urlencoded_form_of_many_fields_is_refused_before_it_is_taken_apart() -> None:
    body = b"&" * (50 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=r"Too many fields\. Maximum number of fields is 1000") as caught:
            parse_form("application/x-www-form-urlencoded", body)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.status == 400


def test_reads_a_urlencoded_form() -> None:
    form = parse_form("application/x-www-form-urlencoded", b"entries=%7B%7D&text=caf%C3%A9+%E7%8C%AB")
    assert form == Form(entries="{}", image=None, text="café 猫")


def test_the_last_of_repeated_fields_counts_and_unknown_ones_are_kept() -> None:
    encoder = MultipartEncoder([("entries", "{}"), ("other", "x"), ("entries", '{"a":1}'), ("text", "t")])
    form = parse_form(encoder.content_type, encoder.to_string())
    assert form == Form(entries='{"a":1}', image=None, text="t", others=(Part("other", b"x"),))


NEEDS_DETECTION = (
    "Task ocr of type recognition depends on output of (<ModelType.DETECTION: 'detection'>, <ModelTask.OCR: 'ocr'>)"
)
OCR_TASK = {"detection": {"modelName": "m"}, "recognition": {"modelName": "m"}}


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        (
            {"text": "x"},
            422,
            [{"type": "missing", "loc": ["body", "entries"], "msg": "Field required", "input": None}],
        ),
        ({"entries": "no json", "text": "x"}, 422, "Invalid request format."),
        ({"entries": "[]", "text": "x"}, 422, "Invalid request format."),
        ({"entries": '{"clip":{"textual":{}}}', "text": "x"}, 422, "Invalid request format."),
        ({"entries": '{"clip":[]}', "text": "x"}, 422, "Invalid request format."),
        ({"entries": '{"clip":{"textual":{"modelName":NaN}}}', "text": "x"}, 422, "Invalid request format."),
        ({"entries": json.dumps({"ocr": OCR_TASK})}, 400, "Either image or text must be provided"),
        ({"entries": json.dumps({"ocr": OCR_TASK}), "text": ""}, 400, "Either image or text must be provided"),
        (
            {"entries": '{"ocr":{"recognition":{"modelName":"m"}}}', "text": "x"},
            400,
            NEEDS_DETECTION,
        ),
        ({"entries": "{}", "text": "x" * (1024 * 1024 + 1)}, 400, "Part exceeded maximum size of 1024KB."),
    ],
)
def test_refuses_with_stocks_status_and_words(fields: dict[str, str], status: int, detail: object) -> None:
    assert refusal(*multipart(**fields)) == (status, detail)


def test_refuses_broken_multipart_like_stock() -> None:
    content_type, body = multipart(entries="{}", text="x")
    assert refusal("multipart/form-data", body) == (400, "Missing boundary in multipart.")
    assert refusal(content_type, b"--nonsense\r\n") == (400, "There was an error parsing the body")


def test_half_an_image_is_never_taken_for_a_whole_one() -> None:
    headers = json.loads((WIRE / "ocr.headers.json").read_text())["headers"]
    body = (WIRE / "ocr.body").read_bytes()
    for cut in (len(body) // 2, len(body) - 50, len(body) - 3):
        with pytest.raises(ProtocolError, match="error parsing the body"):
            parse_form(headers["content-type"], body[:cut])


def test_an_empty_image_is_an_image() -> None:
    form = parse_form(*multipart(entries="{}", image=("blob", b"", "application/octet-stream")))
    assert form.image == b""
    require_payload(form)


def test_bounds_the_number_of_parts() -> None:
    content_type, body = multipart(**{f"f{index}": "x" for index in range(1001)})
    assert refusal(content_type, body) == (400, "Too many fields. Maximum number of fields is 1000.")


def test_an_entry_is_compared_by_its_clean_name_and_shown_as_it_was_spelt() -> None:
    (entry,) = parse_task("clip", {"textual": {"modelName": "ViT-B-16.::openai"}})
    assert (entry.name, entry.spelling) == ("ViT-B-16__openai", "ViT-B-16.::openai")


def test_options_may_be_missing_null_or_empty() -> None:
    types = {"detection": {"modelName": "m", "options": None}, "recognition": {"modelName": "m", "options": {}}}
    detection, recognition = parse_task("ocr", types)
    assert detection.number("minScore", 0.5) == 0.5
    assert recognition.options == {}


def test_an_option_of_the_wrong_type_is_refused() -> None:
    (entry, _) = parse_task("ocr", {**OCR_TASK, "detection": {"modelName": "m", "options": {"minScore": "high"}}})
    with pytest.raises(ProtocolError, match="minScore of ocr/detection must be a number"):
        entry.number("minScore", 0.5)


@given(image=st.binary(max_size=2000), text=st.text(max_size=50))
def test_a_split_request_keeps_the_image_byte_for_byte(image: bytes, text: str) -> None:
    form = Form(entries="ignored", image=image, text=text or None)
    again = parse_form(*build_form({"pet-detection": {"x": 1}}, form))
    assert again.image == image
    assert again.text == (text or None)
    assert parse_entries(again.entries) == {"pet-detection": {"x": 1}}


def test_what_stock_ignores_stays_in_a_split_request() -> None:
    others = (Part("album", b"1"), Part("album", "é".encode()), Part("mask", b"\0\xff", "mask.png", "image/png"))
    again = parse_form(*build_form({}, Form(entries=None, image=b"i", text="t", others=others)))
    assert again == Form(entries="{}", image=b"i", text="t", others=others)


@pytest.mark.parametrize(
    "other",
    [
        Part('a"b', b""),
        Part("a\\b", b""),
        Part("a\r\nX: y", b""),
        Part("a;b", b""),
        Part("", b"x" * (1 << 20) + b"x"),
        Part("mask", b"", 'a"b.png'),
        Part("mask", b"", "mask.png", "multipart/mixed; boundary=x"),
        Part("mask", b"", "mask.png", "text/plain; charset=utf-7"),
    ],
)
def test_what_cannot_be_passed_on_plainly_is_refused(other: Part) -> None:
    with pytest.raises(ProtocolError, match="every parser reads alike") as caught:
        build_form({}, Form(entries=None, image=b"i", text=None, others=(other,)))
    assert caught.value.status == 400


def test_entries_too_deep_to_be_written_again_are_refused() -> None:
    form = parse_form(*multipart(entries='{"x":' * 400 + "1" + "}" * 400, text="t"))
    with pytest.raises(ProtocolError, match="cannot be passed on") as caught:
        build_form(parse_entries(form.entries), form)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "exact"),
    [
        ('{"ocr":{"detection":{"modelName":"m","options":{"a":1}}},"clip":{}}', True),
        ('{"ocr":{},"ocr":{}}', False),
        ('{"ocr":{},"oc\\u0072":{}}', False),
        ('{"ocr":{"detection":{"modelName":"m","options":{"a":1,"a":1}}}}', False),
        ('{"ocr":[{"a":1,"a":2}]}', False),
    ],
)
def test_entries_with_a_key_twice_do_not_go_on_as_they_are(raw: str, *, exact: bool) -> None:
    form = parse_form(*multipart(entries=raw, text="t"))
    assert form.exact
    assert is_exact(form) is exact


@given(st.binary(max_size=400))
def test_any_body_is_parsed_or_refused(body: bytes) -> None:
    for content_type in ("multipart/form-data; boundary=b", "application/x-www-form-urlencoded", "text/plain", ""):
        # Anything but a ProtocolError would be a crash.
        with contextlib.suppress(ProtocolError):
            parse_entries(parse_form(content_type, body).entries)


def test_floats_are_written_with_their_shortest_digits() -> None:
    assert dump({"v": np.array([0.1, -2.0, 1e-7], np.float32)}) == b'{"v":[0.1,-2.0,1e-7]}'


def test_merges_the_answers_of_a_split_request() -> None:
    assert merge([{"ocr": 1, "imageHeight": 2}, {"pets": 3}]) == {"ocr": 1, "imageHeight": 2, "pets": 3}
