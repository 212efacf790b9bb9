"""The ``clip_text`` pipeline in the real Triton: cn_clip's tokens, equal embeddings, and its memory of queries."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from clip_client import ClipClient, Refused
from clip_standins import LIMIT, MODELS, TEXTS, ClipStandins, centred_cosines, run_in_export_environment
from embedded_triton import TritonServer
from tiny_encoders import VOCABULARY, TinyEncoder
from triton.counters import settled

from immich_pipelines import clip_tokenizer
from immich_pipelines.clip_encoders import Array, Encoders
from immich_pipelines.clip_text import ClipText, TextEmbedding, TextJob
from immich_pipelines.clip_tokenizer import Tokenizer
from immich_pipelines.errors import BadInput
from immich_triton.export.clip.models import CLIP_MODELS

# The first test that needs the stand-ins makes them.
pytestmark = pytest.mark.timeout(2400)


# Tokens


def test_tokens_equal_cn_clips_on_generated_strings() -> None:
    script = Path(__file__).resolve().parents[1] / "clip_tokens.py"
    result = json.loads(run_in_export_environment(script, "10000", "1"))
    assert result == {"count": 10_000, "different": []}


def test_torch_is_not_imported() -> None:
    code = "import sys, immich_pipelines.clip_text, immich_pipelines.clip_image; print('torch' in sys.modules)"
    path = Path(__file__).resolve().parents[2] / "triton_backends"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(path)}, capture_output=True, check=True)
    assert done.stdout == b"False\n"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("  \t\n\u3000", []),
        ("一只猫", ["一", "只", "猫"]),
        ("AB a", ["a", "##b", "a"]),
        ("Á", ["a"]),
        ("a.b!", ["a", ".", "b", "!"]),
        ("\0猫\ufffd狗\u200b", ["猫", "狗"]),
        ("a" * 201, ["[UNK]"]),
        ("a" * 200, ["a"] + ["##a"] * 49),
        ("猫" * 60, ["猫"] * 50),
        ("\ud800", ["[UNK]"]),
    ],
)
def test_tokens_by_hand(text: str, tokens: list[str], vocabulary: Path) -> None:
    numbers = Tokenizer(vocabulary).encode(text)
    expected = ["[CLS]", *tokens, "[SEP]"]
    assert numbers.tolist() == [VOCABULARY.index(token) for token in expected] + [0] * (52 - len(expected))


def test_a_file_that_is_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("一\n只\n")
    with pytest.raises(ValueError, match=r"lacks \[CLS\], \[PAD\], \[SEP\], \[UNK\]"):
        Tokenizer(tmp_path / "vocab.txt")


MEBIBYTE = 1 << 20
LONG_TEXTS = {
    "one word": "a",
    "words": "猫 a! ",
    "punctuation": "!",
    "marks in order": "\u0323\u0301",
    "marks out of order": "\u0301\u0323",
    "marks that stay": "\U0001d165\U0001d16d\u0323",
    "letters with marks": "a\u0301\u0323",
    "three decomposed": "ᾧ",
    "Hangul": "각",
    "sigmas": "Σ\u0301",
    "longer in lower case": "İ",
    "ligatures": "ﬁ",
    "controls": "\u200b",
    "spaces": " ",
}


@pytest.mark.parametrize("kind", LONG_TEXTS)
def test_a_megabyte_of_text_is_read_in_no_time(kind: str, vocabulary: Path) -> None:
    text = LONG_TEXTS[kind] * (MEBIBYTE // len(LONG_TEXTS[kind].encode()))
    tokenizer = Tokenizer(vocabulary)
    started = time.process_time()
    tokenizer.encode(text)
    # A fraction of a second; a time that grows with the square of the length would be minutes.
    assert time.process_time() - started < 10


def test_accents_are_dropped_as_normalizing_the_whole_word_would() -> None:
    """Whatever is done about long runs of marks, `unicodedata.normalize` is what cn_clip calls."""

    def whole(word: str) -> str:
        return "".join(char for char in unicodedata.normalize("NFD", word) if unicodedata.category(char) != "Mn")

    every = [chr(code) for code in range(sys.maxunicode + 1)]
    marks = [char for char in every if unicodedata.category(char).startswith("M")]
    staying = [char for char in marks if unicodedata.combining(char) and unicodedata.category(char) != "Mn"]
    composed = [char for char in every if len(unicodedata.normalize("NFD", char)) > 1]
    assert staying
    source = random.Random(7)  # noqa: S311 - nothing secret
    for alphabet in (marks, [*staying, "\u0301", "\u034f", "a"], [*marks, *composed, *"ab각"]):
        for _ in range(5000):
            word = "".join(source.choices(alphabet, k=source.randrange(1, 12)))
            assert clip_tokenizer._strip_accents(word) == whole(word), ascii(word)
    for char in marks + composed:
        assert clip_tokenizer._strip_accents(char) == whole(char), ascii(char)


# Equal to the original


@pytest.fixture(scope="module")
def clip(clip_triton: TritonServer) -> ClipClient:
    return ClipClient(clip_triton)


@pytest.mark.parametrize("model", MODELS)
def test_embeddings_equal_the_originals(model: str, clip: ClipClient, clip_standins: ClipStandins) -> None:
    ours = clip.texts(TEXTS, CLIP_MODELS[model].textual)
    assert ours.shape == (len(TEXTS), CLIP_MODELS[model].dimension)
    assert centred_cosines(ours, clip_standins.expected(model, "text")).min() >= LIMIT
    # One wrong token would be noticed.
    assert centred_cosines(ours, clip_standins.expected(model, "text changed")).min() < LIMIT


# Whatever the text is, with encoders small enough to compute the answer here


@pytest.fixture(scope="module")
def tiny(tiny_triton: TritonServer) -> ClipClient:
    return ClipClient(tiny_triton)


def expected(encoder: TinyEncoder, text: str) -> Array:
    tokens = Tokenizer(encoder.models / encoder.name / "vocab.txt").encode(text)
    result: Array = encoder.expected(tokens[None])[0]
    return result


def check(answer: Array | Refused, encoder: TinyEncoder, text: str) -> None:
    assert not isinstance(answer, Refused), answer
    np.testing.assert_allclose(answer, expected(encoder, text), atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        " \t ",
        "",
        "一只猫\0\0狗",
        "שלום א مرحبا \u202e猫",
        "猫\ud83d",
        "\ud800" * 500,
        "ab猫! " * 180_000,
        "a" * (1 << 20),
        "‮\u0301\u0301",
        "a" + "\u0301\u0323" * 200_000,
    ],
    ids=[
        "spaces",
        "empty",
        "nul",
        "right to left",
        "half an emoji",
        "surrogates",
        "1 MiB",
        "1 MiB word",
        "accents only",
        "accents out of order",
    ],
)
def test_an_odd_text_gets_its_embedding(text: str, tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    check(tiny.text(text.encode("utf-8", "surrogatepass"), "read_a"), encoders["read_a"], text)


@pytest.mark.parametrize("text", [b"\xff\xfe", b"ab\xc3", b"\x80"])
def test_what_is_no_utf8_is_refused(text: bytes, tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    answer = tiny.text(text, "read_a")
    assert isinstance(answer, Refused)
    assert answer.bad_input
    check(tiny.text("狗".encode(), "read_a"), encoders["read_a"], "狗")


def test_requests_at_the_same_time_get_their_own_answers(tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    jobs = [("猫" * (index % 9) + "a" * (index % 5), ("read_a", "read_b")[index % 2]) for index in range(90)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda job: tiny.text(job[0].encode(), job[1]), jobs))
    for (text, name), answer in zip(jobs, answers, strict=True):
        check(answer, encoders[name], text)


# Its memory


def test_a_repeated_query_costs_no_inference(tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    check(tiny.text("猫狗猫狗".encode(), "read_a"), encoders["read_a"], "猫狗猫狗")
    before = settled(lambda: tiny.count("nv_inference_count", "read_a"))
    assert before > 0
    # The same tokens, though another text.
    for text in ("猫狗猫狗", " 猫狗 猫狗\n"):
        check(tiny.text(text.encode(), "read_a"), encoders["read_a"], "猫狗猫狗")
    assert settled(lambda: tiny.count("nv_inference_count", "read_a")) == before


def test_one_text_has_a_vector_for_each_encoder(tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    for _ in range(2):
        for name in ("read_a", "read_b"):
            check(tiny.text("狗a猫".encode(), name), encoders[name], "狗a猫")


def test_a_request_that_failed_once_succeeds_when_repeated(tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    tiny.unload("read_b")
    answer = tiny.text("狗狗".encode(), "read_b")
    assert isinstance(answer, Refused)
    assert answer.status == "500"
    tiny.load("read_b")
    check(tiny.text("狗狗".encode(), "read_b"), encoders["read_b"], "狗狗")


def test_a_new_export_is_not_answered_from_memory(tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    old = TinyEncoder(encoders["read_a"].models, "read_anew", 97, visual=False)
    old.write()
    tiny.load("read_anew")
    check(tiny.text("猫".encode(), "read_anew"), old, "猫")
    new = TinyEncoder(old.models, "read_anew", 98, visual=False)
    new.write_record()
    # Triton still has the old one: its vectors must not be taken for the new one's.
    answer = tiny.text("猫".encode(), "read_anew")
    assert isinstance(answer, Refused)
    assert "restart Triton" in answer.text
    new.write()
    tiny.load("read_anew")
    check(tiny.text("猫".encode(), "read_anew"), new, "猫")


class Counting:
    """Runs tiny encoders in this process, and counts what it was asked."""

    def __init__(self, encoders: Mapping[str, TinyEncoder]) -> None:
        self.encoders = encoders
        self.batches: list[tuple[str, int]] = []

    def __call__(self, model: str, inputs: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        tokens = inputs["TOKENS"]
        self.batches.append((model, len(tokens)))
        encoder = self.encoders[model]
        return [encoder.expected(tokens), np.full((len(tokens), 1), encoder.seed)]


def test_a_batch_asks_each_encoder_once(encoders: dict[str, TinyEncoder]) -> None:
    call = Counting(encoders)
    pipeline = ClipText(Encoders(encoders["read_a"].models), call, cache_size=10)
    jobs = [("猫", "read_a"), ("狗", "read_b"), ("猫", "read_a"), ("a", "read_a"), ("猫", "read_b")]
    results = pipeline.run([TextJob(text.encode(), name) for text, name in jobs] + [TextJob(b"\xff", "read_a")])
    for (text, name), result in zip(jobs, results, strict=False):
        assert isinstance(result, TextEmbedding)
        np.testing.assert_allclose(result.embedding, expected(encoders[name], text), atol=1e-5)
        assert result.fingerprint == encoders[name].seed
    assert isinstance(results[-1], BadInput)
    assert call.batches == [("read_a", 2), ("read_b", 2)]


def test_the_query_unused_for_the_longest_time_is_forgotten(encoders: dict[str, TinyEncoder]) -> None:
    call = Counting(encoders)
    pipeline = ClipText(Encoders(encoders["read_a"].models), call, cache_size=2)
    for text in ("a", "b", "a", "猫", "a"):
        pipeline.run([TextJob(text.encode(), "read_a")])
    assert len(call.batches) == 3
    pipeline.run([TextJob(b"b", "read_a")])
    assert len(call.batches) == 4


def test_an_encoder_without_its_files_is_a_fault_of_the_server(
    encoders: dict[str, TinyEncoder], tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(encoders["read_a"].models, models)
    (models / "read_a/vocab.txt").unlink()
    (models / "read_b/export.json").write_text("{}")
    pipeline = ClipText(Encoders(models), Counting(encoders), cache_size=2)
    for name in ("read_a", "read_b"):
        (result,) = pipeline.run([TextJob(b"a", name)])
        assert isinstance(result, Exception)
        assert not isinstance(result, BadInput)
