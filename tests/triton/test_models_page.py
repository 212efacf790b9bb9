"""The examples of docs/models.md, run as they stand there, but for addresses and names of models."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import face_standins
import tiny_encoders
from embedded_triton import TritonServer
from PIL import Image
from places import PROJECT

from immich_triton.ml.route_file import read_route

PAGE = (PROJECT / "docs/models.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^ *<!-- example: (\w+) -->\n( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
EXAMPLES = [(about, language, textwrap.dedent(code)) for about, _, language, code in EXAMPLE.findall(PAGE)]


def examples(about: str, language: str) -> list[str]:
    """The examples about something, in a language, as they stand on the page."""
    return [code for what, how, code in EXAMPLES if (what, how) == (about, language)]


def run(code: str, language: str, server: TritonServer, folder: Path, names: Mapping[str, str]) -> str:
    """Run an example in *folder*, with *names* in the place of others; return what it prints."""
    for before, after in {"127.0.0.1:8000": server.url.removeprefix("http://"), **names}.items():
        code = code.replace(before, after)
    program = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_examples_and_all_of_them_are_run() -> None:
    assert [(about, language) for about, language, _ in EXAMPLES] == [
        ("ocr", "sh"),
        ("ocr", "sh"),
        ("clip", "sh"),
        ("clip", "python"),
        ("faces", "python"),
        ("route", "toml"),
    ]


def test_ocr_with_curl(ocr_triton: TritonServer, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "tests/data/images/zh_receipt.jpg", tmp_path / "photo.jpg")
    raw, with_header = examples("ocr", "sh")
    assert run(raw, "sh", ocr_triton, tmp_path, {}) == "200\n"
    assert "华东超市购物小票".encode() in (tmp_path / "answer.bin").read_bytes()
    answer = json.loads(run(with_header, "sh", ocr_triton, tmp_path, {}))
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["TEXTS"][0] == "华东超市购物小票"
    assert min(outputs["TEXT_SCORES"]) >= 0.8


TINY = {"cn_clip_ViT-B-16_visual": "see_a", "cn_clip_ViT-B-16_textual": "read_a"}


def test_clip_with_curl_and_python(tiny_triton: TritonServer, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "tests/data/images/zh_receipt.jpg", tmp_path / "photo.jpg")
    (with_curl,), (with_python,) = examples("clip", "sh"), examples("clip", "python")
    answer = json.loads(run(with_curl, "sh", tiny_triton, tmp_path, TINY))
    assert len(answer["outputs"][0]["data"]) == tiny_encoders.DIMENSION
    found = re.fullmatch(r"cosine (-?\d\.\d{4})\n", run(with_python, "python", tiny_triton, tmp_path, TINY))
    assert found
    assert -1 <= float(found[1]) <= 1


def test_faces_with_python(face_triton: TritonServer, tmp_path: Path) -> None:
    left, right = (Image.open(path).convert("RGB") for path in list(face_standins.portraits().values())[:2])
    both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    both.save(tmp_path / "photo.jpg", quality=95)
    names = {"face_det_buffalo_l": "face_det_standin", "face_rec_buffalo_l": "face_rec_standin"}
    (code,) = examples("faces", "python")
    lines = run(code, "python", face_triton, tmp_path, names).splitlines()
    assert lines[0] == "2 faces"
    assert lines[-1].startswith("cosine ")


def test_the_route_is_one(tmp_path: Path) -> None:
    (tmp_path / "my_rec").mkdir()
    (text,) = examples("route", "toml")
    (tmp_path / "my_rec/route.toml").write_text(text, encoding="utf-8")
    route = read_route(tmp_path / "my_rec/route.toml")
    assert (route.task, [*route.pipelines[0].models]) == ("ocr", ["ocr_det", "my_rec"])
