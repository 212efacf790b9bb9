"""mt-photos-ai's API end to end: real models in the real Triton behind it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import tiny_encoders
from embedded_triton import TritonServer
from gateway_process import GatewayProcess, running_gateway
from mt_photos_shapes import SHAPES, differences
from PIL import Image
from places import PROJECT
from tiny_encoders import TinyEncoder

RECEIPT = PROJECT / "tests/data/images/zh_receipt.jpg"
KEY = {"api-key": "mt_photos_ai_extra"}
SCRIPT = PROJECT / "addons/mt_photos.py"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def reader(
    ocr_triton: TritonServer, ocr_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("mt-photos-ocr")
    with running_gateway(
        directory, models=ocr_models, triton_url=ocr_triton.url, upstream=NOWHERE, script=SCRIPT
    ) as process:
        yield process


@pytest.fixture(scope="module")
def searcher(
    tiny_triton: TritonServer, encoders: dict[str, TinyEncoder], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("mt-photos-clip")
    models = encoders["see_a"].models
    with running_gateway(
        directory, models=models, triton_url=tiny_triton.url, upstream=NOWHERE, script=SCRIPT, mt_photos_clip="see_a"
    ) as process:
        yield process


def post(service: GatewayProcess, path: str, image: bytes) -> requests.Response:
    return requests.post(f"{service.url}{path}", files={"file": ("a", image)}, headers=KEY, timeout=120)


def saved(image: Image.Image, kind: str, **more: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


@pytest.mark.parametrize("path", ["/ocr", "/ocr/rec"])
def test_reads_the_nine_lines_of_a_receipt_with_their_boxes(reader: GatewayProcess, path: str) -> None:
    answer = post(reader, path, RECEIPT.read_bytes())
    assert answer.status_code == 200
    assert differences(answer.json(), SHAPES["ocr"]) == []
    result = answer.json()["result"]
    assert result["texts"][0] == "华东超市购物小票"
    assert len(result["texts"]) == len(result["scores"]) == len(result["boxes"]) == 9
    for box in result["boxes"]:
        left, top, width, height = (float(box[side]) for side in ("x", "y", "width", "height"))
        assert left >= 0
        assert top >= 0
        assert left + width <= 1440
        assert top + height <= 1920
        assert width > height


def test_of_a_gif_the_first_frame_is_read(reader: GatewayProcess) -> None:
    with Image.open(RECEIPT) as image:
        first = image.convert("L")
    blank = Image.new("L", first.size, 255)
    lines = post(reader, "/ocr", saved(first, "GIF", save_all=True, append_images=[blank])).json()["result"]["texts"]
    assert "华东超市购物小票" in lines
    empty = post(reader, "/ocr", saved(blank, "GIF", save_all=True, append_images=[first]))
    assert empty.json() == SHAPES["ocr_without_text"]


@pytest.mark.parametrize("image", [b"", b"no image", RECEIPT.read_bytes()[:3000]])
def test_what_cannot_be_read_gets_200_and_no_result(reader: GatewayProcess, image: bytes) -> None:
    answer = post(reader, "/ocr", image)
    assert answer.status_code == 200
    assert differences(answer.json(), SHAPES["unreadable"]) == []
    assert answer.json()["msg"]


def test_a_format_whose_head_does_not_tell_its_size_is_refused_by_it_too(reader: GatewayProcess) -> None:
    wide = saved(Image.new("L", (10_001, 8), 255), "TIFF")
    assert post(reader, "/ocr", wide).json() == {"result": [], "msg": "height or width out of range"}


def test_vectors_are_those_of_the_encoder_with_length_1(
    searcher: GatewayProcess, encoders: dict[str, TinyEncoder]
) -> None:
    side = tiny_encoders.IMAGE_SIZE
    grey = Image.new("RGB", (side, side), (200, 100, 50))
    answer = post(searcher, "/clip/img", saved(grey, "PNG"))
    assert differences(answer.json(), SHAPES["clip"]) == []
    vector = np.array([float(number) for number in answer.json()["result"]])
    assert vector.shape == (encoders["see_a"].dimension,)
    assert abs(np.linalg.norm(vector) - 1) < 1e-5
    text = requests.post(f"{searcher.url}/clip/txt", json={"text": "一只猫"}, headers=KEY, timeout=60).json()
    assert len(text["result"]) == encoders["read_a"].dimension


def test_the_ledger_knows_whose_vectors_they_are(searcher: GatewayProcess) -> None:
    requests.post(f"{searcher.url}/clip/txt", json={"text": "a"}, headers=KEY, timeout=60)
    owned = json.loads((searcher.state_dir / "owned.json").read_text())
    assert "mt-photos" in json.dumps(owned)
