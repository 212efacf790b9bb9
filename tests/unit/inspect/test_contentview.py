"""The content views, chosen and rendered by mitmproxy, of Immich's own requests and of stock's answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import contentviews
from mitmproxy.addonmanager import Loader
from mitmproxy.contentviews import prettify_message
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.test import taddons, tflow, tutils
from places import DATA

from immich_triton.inspect.contentview import AnswerView, ContentViews, RequestView, answer_lines


@pytest.fixture(autouse=True)
def _registered() -> None:
    with taddons.context() as context:
        ContentViews().load(Loader(context.master))


def flow_of(name: str, answer: bytes = b"", status: int = 200, path: str = "/predict") -> HTTPFlow:
    headers = json.loads((DATA / "wire" / f"{name}.headers.json").read_text())["headers"]
    request = tutils.treq(method=b"POST", path=path.encode(), content=(DATA / "wire" / f"{name}.body").read_bytes())
    request.headers["content-type"] = {key.lower(): value for key, value in headers.items()}["content-type"]
    response = Response.make(status, answer, {"content-type": "application/json"})
    return tflow.tflow(req=request, resp=response)


def shown(flow: HTTPFlow, *, request: bool = False) -> tuple[str | None, str]:
    """Return name and text of the view that mitmproxy chooses by itself."""
    message = flow.request if request else flow.response
    assert message
    with taddons.context():
        result = prettify_message(message, flow)
    return result.view_name, result.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "ocr",
            """ocr:
  detection: PP-OCRv5_mobile (minScore 0.5, maxResolution 736)
  recognition: PP-OCRv5_mobile (minScore 0.8)
image: JPEG, 451 x 300 pixels, 27,833 bytes""",
        ),
        (
            "clip_textual",
            'clip:\n  textual: ViT-B-16__openai (language "zh-CN")\ntext: "北京的春节鞭炮"',
        ),
        (
            "unknown_task",
            "pet-detection:\n  detection: some-model (minScore 0.5)\nimage: JPEG, 451 x 300 pixels, 27,833 bytes",
        ),
    ],
)
def test_requests(name: str, text: str) -> None:
    assert shown(flow_of(name), request=True) == ("Immich request", text)


def test_the_path_counts_as_the_gateway_reads_it() -> None:
    assert shown(flow_of("ocr", path="/x/../%70redict/"), request=True)[0] == "Immich request"
    assert shown(flow_of("ocr", path="/predictions"), request=True)[0] == "Multipart Form"


def test_a_broken_request_is_shown_with_its_answer() -> None:
    flow = flow_of("ocr")
    assert flow.request.raw_content
    flow.request.raw_content = flow.request.raw_content[:-60]
    name, text = shown(flow, request=True)
    assert name == "Immich request"
    assert text == 'not a valid request: "There was an error parsing the body"\nanswer: 400'


def test_text_lines() -> None:
    name, text = shown(flow_of("ocr", (DATA / "stock" / "mixed_sign.webp.ocr.json").read_bytes()))
    assert name == "Immich answer"
    assert text.splitlines()[:4] == [
        "image: 1920 x 1440 pixels",
        "ocr: 4 lines",
        '  1: "WiFi: Airport-Free"',
        "     score 0.997, box 263,1023 1330,1221, box score 0.840",
    ]


def test_faces() -> None:
    _, text = shown(flow_of("faces", (DATA / "stock" / "astronaut.jpg.faces.json").read_bytes()))
    assert text.splitlines()[1] == "facial-recognition: 1 face"
    assert text.splitlines()[2:] == [
        "  1: score 0.822, box 509,158 761,502",
        "     512 numbers, norm 85.2211: -24.1252, -6.0997, 8.3176, -0.9215, -6.8718, …",
    ]


def test_an_embedding() -> None:
    _, text = shown(flow_of("clip_visual", b'{"clip":"[0.6,-0.8]","imageHeight":3,"imageWidth":4}'))
    assert text == "image: 4 x 3 pixels\nclip: 2 numbers, norm 1.0000\n  0.6000, -0.8000, …"


def test_detection_alone() -> None:
    answer = {"ocr": {"boxes": [[[1, 2], [3, 2], [3, 4], [1, 4]]], "scores": [0.75]}, "imageWidth": 9, "imageHeight": 9}
    _, text = shown(flow_of("ocr", json.dumps(answer).encode()))
    assert text.splitlines()[1:] == ["ocr: 1 box, detection only", "  1: score 0.750, box 1,2 3,2 3,4 1,4"]


def test_errors() -> None:
    _, text = shown(flow_of("ocr", b'{"detail":"ocr gave no answer within 120 s"}', 503))
    assert text == "error: ocr gave no answer within 120 s"
    assert shown(flow_of("ocr", b"Internal Server Error", 500)) == ("Immich answer", "Internal Server Error")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            b'{"ocr":{"text":["a"],"box":[]},"imageWidth":1,"imageHeight":1}',
            'image: 1 x 1 pixels\nocr: {"text": ["a"], "box": []}',
        ),
        (b'{"clip":[1,2]}', "clip: [1, 2]"),
        (b'{"facial-recognition":[{"score":1}]}', 'facial-recognition: [{"score": 1}]'),
        (b'{"pet-detection":[{"label":"cat"}]}', 'pet-detection: [{"label": "cat"}]'),
        (b"[1,2]", "[1, 2]"),
        (b"null", "null"),
    ],
)
def test_what_is_no_answer_of_immichs_is_shown_as_it_is(answer: bytes, text: str) -> None:
    assert shown(flow_of("ocr", answer)) == ("Immich answer", text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["ocr", "clip", "facial-recognition", "detail", "imageWidth", "imageHeight", "text", "boxes"])


@given(st.dictionaries(KEYS, JSON, max_size=5))
def test_any_answer_can_be_shown(answer: dict[str, object]) -> None:
    assert all("\n" not in line or "detail" in answer for line in answer_lines(answer))


def test_other_traffic_keeps_mitmproxys_views() -> None:
    flow = tflow.tflow(resp=Response.make(200, b'{"a": 1}', {"content-type": "application/json"}))
    assert shown(flow)[0] == "JSON"
    assert {RequestView.name, AnswerView.name} <= {view.name for view in contentviews.registry.values()}
