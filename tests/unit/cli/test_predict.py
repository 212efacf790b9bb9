"""One image is asked about as Immich does, and the answer is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from canned_gateway import CannedGateway, canned_gateway
from places import DATA

from harness.ports import free_ports
from immich_triton.cli import predict

IMAGES = DATA / "images"


@pytest.fixture(scope="module")
def running() -> Iterator[CannedGateway]:
    with canned_gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(running: CannedGateway, monkeypatch: pytest.MonkeyPatch) -> CannedGateway:
    monkeypatch.setenv("COLUMNS", "120")
    running.answer = (200, b"{}")
    running.bodies.clear()
    return running


def run(gateway: CannedGateway, *arguments: object) -> int:
    return predict.main(["--url", gateway.url, *map(str, arguments)])


@pytest.mark.parametrize(
    ("task", "file", "shown"),
    [
        ("ocr", "zh_receipt.jpg", ["华东超市购物小票", "box score", " pixels, 9 lines, "]),
        ("faces", "astronaut.jpg", ["embedding", " pixels, 1 faces, "]),
    ],
)
def test_an_answer_is_a_table(
    gateway: CannedGateway, capsys: pytest.CaptureFixture[str], task: str, file: str, shown: list[str]
) -> None:
    recorded = (DATA / f"stock/{file}.{task}.json").read_bytes()
    gateway.answer = (200, recorded)
    assert run(gateway, IMAGES / file, "--task", task) == 0
    printed = capsys.readouterr().out
    for text in shown:
        assert text in printed
    answer = json.loads(recorded)
    assert f"{answer['imageWidth']} x {answer['imageHeight']} pixels" in printed
    scores = [face["score"] for face in answer["facial-recognition"]] if task == "faces" else answer["ocr"]["textScore"]
    assert all(f"{score:.3f}" in printed for score in scores)
    (sent,) = gateway.bodies
    assert (IMAGES / file).read_bytes() in sent, "the image as it is"


def test_a_vector_is_told_by_its_size(gateway: CannedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answer = (200, json.dumps({"clip": json.dumps([0.6, 0.8])}).encode())
    assert run(gateway, "红色的汽车", "--task", "clip-text", "--model", "mine") == 0
    assert "2 numbers, norm 1.0000, 0.6000, 0.8000, …" in capsys.readouterr().out
    (sent,) = gateway.bodies
    assert "红色的汽车".encode() in sent
    assert b'"modelName": "mine"' in sent


def test_the_answer_as_it_came(gateway: CannedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answer = (200, '{"ocr": {"text": ["猫"]}}'.encode())
    assert run(gateway, IMAGES / "blank.jpg", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ocr": {"text": ["猫"]}}


@pytest.mark.parametrize(("status", "hint"), [(500, False), (404, True)])
def test_a_refusal_is_an_error_and_says_what_may_help(
    gateway: CannedGateway, capsys: pytest.CaptureFixture[str], status: int, hint: bool
) -> None:
    gateway.answer = (status, b'{"detail":"no"}')
    assert run(gateway, IMAGES / "blank.jpg") == 1
    error = capsys.readouterr().err
    assert f"predict: {gateway.url} answered {status}: " in error
    assert ("immich_path_token" in error) == hint


def test_what_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}/s3cret"
    assert predict.main(["--url", nobody, str(IMAGES / "blank.jpg")]) == 1
    error = capsys.readouterr().err
    assert f"predict: nobody answers at {nobody.removesuffix('s3cret')}…: " in error
    assert "predict: is the gateway running? Start it with: immich-triton run" in error
    assert predict.main(["--url", nobody, str(tmp_path / "missing.jpg")]) == 1
    error = capsys.readouterr().err
    assert "predict: cannot read: " in error
    assert "gateway" not in error
