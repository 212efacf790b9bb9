"""``eval_clip.py``: recall on sets with a known answer, and the whole way through real gateway and real Triton."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import eval_clip
import numpy as np
import numpy.typing as npt
import pytest
import tiny_encoders
from clip_retrieval import DataError, load, recalls
from embedded_triton import StartTriton
from gateway_process import GatewayProcess, running_gateway
from PIL import Image
from recorder import recording_upstream

from immich_pipelines.clip_tokenizer import Tokenizer
from immich_pipelines.clip_transform import image_transform

# Recall


def unit(*angles: float) -> npt.NDArray[np.float32]:
    """Vectors of length 1 at these angles in degrees: the closer the angles, the more similar."""
    radians = np.deg2rad(angles)
    vectors: npt.NDArray[np.float32] = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    return vectors


def test_recall_counted_by_hand() -> None:
    images = unit(*range(0, 24, 2))  # twelve
    # Text 0 is nearest to its image; texts 1, 2 and 3 to image 0 though theirs are 1, 7 and 11.
    texts = unit(0, -1, -1, -1)
    pairs = [frozenset({0}), frozenset({1}), frozenset({7}), frozenset({11})]
    found = recalls(images, texts, pairs)
    assert found["text to image"] == {1: 25.0, 5: 50.0, 10: 75.0}


def test_any_of_several_partners_counts() -> None:
    found = recalls(unit(0, 90), unit(2, 80, 89), [frozenset({0, 1}), frozenset({1}), frozenset({0})])
    assert found["text to image"] == {1: pytest.approx(200 / 3), 5: 100.0, 10: 100.0}
    # Image 0 is nearest to text 0, image 1 to text 2, which is not its own.
    assert found["image to text"] == {1: 50.0, 5: 100.0, 10: 100.0}


def test_an_image_without_caption_is_a_candidate_but_no_query() -> None:
    found = recalls(unit(10, 0), unit(2), [frozenset({0})])
    assert found["text to image"][1] == 0.0
    assert found["image to text"][1] == 100.0


# Files


def png(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_folder(folder: Path, captions: list[list[str]], *, alphabet: str = "standard") -> None:
    """Write a set as Chinese-CLIP publishes them; ``captions[n]`` are those of image n, whose id is 1000 + n."""
    encode = base64.urlsafe_b64encode if alphabet == "url" else base64.b64encode
    lines = [f"{1000 + number}\t{encode(png(number)).decode()}\n" for number in range(len(captions))]
    (folder / "test_imgs.tsv").write_text("".join(lines))
    texts = [(text, 1000 + number) for number, own in enumerate(captions) for text in own]
    entries = [{"text_id": index, "text": text, "image_ids": [image]} for index, (text, image) in enumerate(texts)]
    (folder / "test_texts.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize("alphabet", ["standard", "url"])
def test_a_published_folder(alphabet: str, tmp_path: Path) -> None:
    write_folder(tmp_path, [["一只“猫”", "猫"], ["狗"], []], alphabet=alphabet)
    data = load(tmp_path, "test")
    assert [read() for read in data.images] == [png(0), png(1), png(2)]
    # Quotation marks as in the published figures.
    assert data.texts == ['一只"猫"', "猫", "狗"]
    assert [set(members) for members in data.pairs] == [{0}, {0}, {1}]


def test_a_tsv(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(ord(name[0])))
    (tmp_path / "captions.tsv").write_text("a.png\t猫\u2028咪\nb.png\t狗\n\na.png\t宠物\nb.png\t宠物\n")
    data = load(tmp_path / "captions.tsv", "ignored")
    assert [read() for read in data.images] == [png(ord("a")), png(ord("b"))]
    assert dict(zip(data.texts, data.pairs, strict=True)) == {"猫\u2028咪": {0}, "狗": {1}, "宠物": {0, 1}}


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("captions.tsv", "a.png no tab\n", "captions.tsv, line 1: no tab"),
        ("test_imgs.tsv", "1000 no tab\n", "no tab in the line at byte 0"),
        ("test_texts.jsonl", '{"text": "猫"}\n', "test_texts.jsonl, line 1: KeyError"),
        ("test_texts.jsonl", '{"text": "猫", "image_ids": [77]}\n', "test_texts.jsonl, line 1: KeyError"),
        ("test_texts.jsonl", "no json\n", "test_texts.jsonl, line 1: JSONDecodeError"),
    ],
)
def test_a_file_in_another_format_is_refused_with_its_line(
    file: str, content: str, reason: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, [["猫"]])
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=reason):
        load(tmp_path / file if file == "captions.tsv" else tmp_path, "test")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"valid_imgs\.tsv cannot be read"):
        load(tmp_path, "valid")


# The whole way


@pytest.fixture(scope="module")
def gateway(triton_server: StartTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    models = tmp_path_factory.mktemp("eval-clip") / "models"
    tiny_encoders.repository(models)
    with (
        recording_upstream() as upstream,
        triton_server(models) as triton,
        running_gateway(
            tmp_path_factory.mktemp("gateway"), models=models, triton_url=triton.url, upstream=upstream.url
        ) as process,
    ):
        yield process
        assert upstream.predictions() == []


def run(gateway: GatewayProcess, *arguments: str) -> int:
    return eval_clip.main([*arguments, "--gateway", gateway.url, "--name", tiny_encoders.NAME])


def test_recall_through_gateway_and_triton(
    gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [["猫" * (number % 5 + 1) + "ab.!"[number % 4] * (number // 4 + 1)] for number in range(24)]
    write_folder(tmp_path, captions)
    assert run(gateway, str(tmp_path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    similarity = expected_similarity(tmp_path.parent, captions)
    for rank in (1, 5, 10):
        by_text = sum(image in ranked(similarity[:, image], rank) for image in range(24)) / 24
        by_image = sum(text in ranked(similarity[text], rank) for text in range(24)) / 24
        assert found["text to image"][f"R@{rank}"] == pytest.approx(100 * by_image)
        assert found["image to text"][f"R@{rank}"] == pytest.approx(100 * by_text)
    # Neither nothing nor everything was found: the figures say something.
    assert 0 < found["text to image"]["R@10"] < 100


def expected_similarity(folder: Path, captions: list[list[str]]) -> npt.NDArray[np.float32]:
    """[text, image], computed in this process with the same encoders."""
    encoders = tiny_encoders.repository(folder / "models")
    tokenizer = Tokenizer(folder / "models/read_a/vocab.txt")
    tokens = np.stack([tokenizer.encode(own[0]) for own in captions])
    pictures = [Image.open(io.BytesIO(png(number))) for number in range(len(captions))]
    tensors = np.stack([image_transform(picture, tiny_encoders.IMAGE_SIZE) for picture in pictures])
    similarity: npt.NDArray[np.float32] = encoders["read_a"].expected(tokens) @ encoders["see_a"].expected(tensors).T
    return similarity


def ranked(row: npt.NDArray[np.float32], rank: int) -> list[int]:
    return sorted(range(len(row)), key=lambda index: row[index], reverse=True)[:rank]


def test_the_table(gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "captions.tsv").write_text("a.png\t猫\n")
    assert run(gateway, str(tmp_path / "captions.tsv")) == 0
    text = capsys.readouterr().out
    assert "1 images, 1 texts" in text
    assert text.count("100.0") == 8


def test_a_bad_image_ends_it_with_the_gateways_words(
    gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "captions.tsv").write_text("a.png\t猫\n")
    assert run(gateway, str(tmp_path / "captions.tsv")) == 1
    assert "the gateway answered 400" in capsys.readouterr().err


def test_an_empty_set_is_said(gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "captions.tsv").write_text("\n")
    assert run(gateway, str(tmp_path / "captions.tsv")) == 1
    assert "there are no images" in capsys.readouterr().err
