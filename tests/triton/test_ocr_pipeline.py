"""The ``ocr`` pipeline in the real embedded Triton, with the models as they are exported by default."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http
from embedded_triton import TritonServer
from ocr_exports import F32, TOGETHER
from rapidocr_reference import RapidOcrReference
from scrape import Scrape
from tritonclient.utils import InferenceServerException

from harness.program import eventually
from trials.long_screenshots import screenshot_of_a_page

IMAGES = Path(__file__).resolve().parents[1] / "data" / "images"
OUTPUTS = ("BOXES", "BOX_SCORES", "TEXTS", "TEXT_SCORES", "IMAGE_SIZE")
RECEIPT = [
    "华东超市购物小票",
    "日期2025-06-1018:32",
    "苹果3.5kg¥28.70",
    "牛奶2盒¥19.80",
    "全麦面包¥12.50",
    "鸡蛋1打¥15.90",
    "合计¥76.90",
    "会员卡号622201883391",
    "谢谢惠顾欢迎再来",
]


@pytest.fixture(scope="module")
def server(ocr_triton: TritonServer) -> TritonServer:
    return ocr_triton


def image(name: str) -> bytes:
    return (IMAGES / name).read_bytes()


def read(server: TritonServer, data: bytes, **parameters: str | int | bool) -> dict[str, Any]:
    """Ask the pipeline, see `read_by`."""
    return read_by("ocr", server, data, **parameters)


def read_by(model: str, server: TritonServer, data: bytes, **parameters: str | int | bool) -> dict[str, Any]:
    """Ask the pipeline *model*; every output without its leading 1, texts as strings."""
    given = tritonclient.http.InferInput("IMAGE", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[data]], dtype=np.object_))
    address = server.url.removeprefix("http://")
    with tritonclient.http.InferenceServerClient(address, network_timeout=120.0) as client:
        result = client.infer(model, [given], parameters=parameters)
    answer = {name: result.as_numpy(name) for name in OUTPUTS}
    assert {len(value) for value in answer.values()} == {1}
    return {name: value[0] for name, value in answer.items()} | {
        "TEXTS": [text.decode() for text in answer["TEXTS"][0]]
    }


def plain(texts: list[str]) -> list[str]:
    return [text.replace(" ", "").replace("￥", "¥") for text in texts]


def test_the_receipt_is_read_in_order(server: TritonServer) -> None:
    answer = read(server, image("zh_receipt.jpg"))
    assert plain(answer["TEXTS"]) == RECEIPT
    assert answer["BOXES"].shape == (9, 8)
    assert answer["IMAGE_SIZE"].tolist() == [1920, 1440]
    assert (answer["BOX_SCORES"] >= 0.5).all()
    assert (answer["TEXT_SCORES"] > 0.8).all()
    assert ((answer["BOXES"] >= 0) & (answer["BOXES"] <= 1)).all()


def test_a_tilted_sign_is_read_from_the_top(server: TritonServer) -> None:
    answer = read(server, image("mixed_sign.webp"))
    assert plain(answer["TEXTS"]) == ["出口EXIT", "Gate12登机口", "请勿吸烟NoSmoking", "WiFi:Airport-Free"]


def test_a_vertical_column_is_read(server: TritonServer) -> None:
    answer = read(server, image("vertical_couplet.jpg"))
    assert answer["TEXTS"] == ["春节快乐万事如意"]
    left, top, right, bottom = answer["BOXES"][0][[0, 1, 4, 5]]
    assert bottom - top > 5 * (right - left)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("blank.jpg", [1440, 1440]),
        ("astronaut.jpg", [1440, 1440]),
        ("cat_no_text_no_face.jpg", [300, 451]),
        ("tiny_16px.png", [16, 16]),
    ],
)
def test_pictures_without_text_give_empty_arrays(server: TritonServer, name: str, size: list[int]) -> None:
    answer = read(server, image(name))
    assert answer["BOXES"].shape == (0, 8)
    assert answer["BOX_SCORES"].shape == answer["TEXT_SCORES"].shape == (0,)
    assert answer["TEXTS"] == []
    assert answer["IMAGE_SIZE"].tolist() == size


def test_detection_alone_gives_every_box_and_no_text(server: TritonServer) -> None:
    answer = read(server, image("zh_receipt.jpg"), recognition=False)
    assert answer["BOXES"].shape == (9, 8)
    assert answer["TEXTS"] == []
    assert answer["TEXT_SCORES"].shape == (0,)
    full = read(server, image("zh_receipt.jpg"), recognition_min_score="0")
    np.testing.assert_array_equal(answer["BOXES"], full["BOXES"])
    np.testing.assert_array_equal(answer["BOX_SCORES"], full["BOX_SCORES"])


def test_minimum_scores_belong_to_the_request(server: TritonServer) -> None:
    every = read(server, image("zh_receipt.jpg"), recognition_min_score="0")
    text_score, box_score = (float(np.sort(every[name])[3:5].mean()) for name in ("TEXT_SCORES", "BOX_SCORES"))
    sure = read(server, image("zh_receipt.jpg"), recognition_min_score=str(text_score))
    assert sure["TEXTS"] == kept(every, "TEXT_SCORES", text_score)
    sharp = read(server, image("zh_receipt.jpg"), detection_min_score=str(box_score), recognition_min_score="0")
    assert sharp["TEXTS"] == kept(every, "BOX_SCORES", box_score)


def kept(answer: dict[str, Any], name: str, minimum: float) -> list[str]:
    return [text for text, score in zip(answer["TEXTS"], answer[name], strict=True) if score > minimum]


def test_a_coarse_resolution_finds_less(server: TritonServer) -> None:
    assert len(read(server, image("zh_receipt.jpg"), max_resolution=64)["TEXTS"]) < len(RECEIPT)


@pytest.mark.parametrize(
    ("data", "parameters", "reason"),
    [
        (b"", {}, "empty"),
        (b"no image", {}, "no image"),
        (image("zh_receipt.jpg")[:5000], {}, "cannot be decoded"),
        (image("tiny_16px.png"), {"max_resolution": 0}, "max_resolution"),
        (image("tiny_16px.png"), {"recognition_min_score": "high"}, "recognition_min_score"),
        (image("tiny_16px.png"), {"recognizer": "../secret"}, "no model name"),
    ],
)
def test_what_the_request_got_wrong_is_a_bad_input(
    server: TritonServer, data: bytes, parameters: dict[str, str | int], reason: str
) -> None:
    with pytest.raises(InferenceServerException, match="bad input: ") as caught:
        read(server, data, **parameters)
    assert caught.value.status() == "400"
    assert reason in str(caught.value)


def test_a_missing_network_is_the_servers_fault(server: TritonServer) -> None:
    with pytest.raises(InferenceServerException) as caught:
        read(server, image("blank.jpg"), detector="absent")
    assert caught.value.status() == "500"
    assert "absent" in str(caught.value)


def test_neighbours_in_a_batch_do_not_hurt_each_other(server: TritonServer) -> None:
    def ask(index: int) -> object:
        try:
            if index % 3 == 0:
                return read(server, b"broken")["TEXTS"]
            if index % 3 == 1:
                return read(server, image("blank.jpg"))["TEXTS"]
            return plain(read(server, image("zh_receipt.jpg"))["TEXTS"])
        except InferenceServerException as error:
            return error.status()

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(24)))
    assert answers == ["400", [], RECEIPT] * 8
    # Requests did share batches, or this has shown nothing.
    assert eventually(lambda: shared_batches(server))


def test_photos_do_not_wait_for_a_long_screenshot_in_their_batch(server: TritonServer) -> None:
    def ask(data: bytes) -> int:
        return len(read_by(TOGETHER, server, data)["TEXTS"])

    def waits() -> bool:
        return Scrape(server.metrics_url).value("nv_inference_pending_request_count", model=TOGETHER) == 1

    long = screenshot_of_a_page((1080, 14_000))
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        screenshot = pool.submit(ask, long)
        assert eventually(waits)  # so that it is the first of the batch
        photos = [pool.submit(ask, image("zh_receipt.jpg")) for _ in range(4)]
        assert [photo.result() for photo in photos] == [len(RECEIPT)] * 4
        # Sent as one list all five would have come in the same moment; it takes as long as the four together.
        assert not screenshot.done()
        assert screenshot.result() == 70

    def batches() -> list[int]:
        (model,) = requests.get(f"{server.url}/v2/models/{TOGETHER}/stats", timeout=10).json()["model_stats"]
        return [each["batch_size"] for each in model["batch_stats"]]

    assert eventually(lambda: bool(batches()))  # counted a moment after the last answer has left
    assert batches() == [5]


def shared_batches(server: TritonServer) -> bool:
    statistics = requests.get(f"{server.url}/v2/models/ocr/stats", timeout=10).json()["model_stats"][0]
    fewer: bool = statistics["execution_count"] < statistics["inference_count"]
    return fewer


def test_parity_with_rapidocr_in_f32(server: TritonServer) -> None:
    reference = RapidOcrReference("v5+v6")
    for name in ("zh_receipt.jpg", "mixed_sign.webp", "vertical_couplet.jpg", "astronaut.jpg"):
        answer = read(server, image(name), **F32)
        expected = {line.text: line for line in reference.read(image(name), own_widths=False)}
        assert sorted(answer["TEXTS"]) == sorted(expected)
        height, width = answer["IMAGE_SIZE"]
        boxes = answer["BOXES"].reshape(-1, 4, 2) * [width, height]
        for text, score, box in zip(answer["TEXTS"], answer["TEXT_SCORES"], boxes, strict=True):
            assert np.abs(box - expected[text].box).max() <= 2
            assert abs(score - expected[text].score) < 1e-3
