"""The ``clip_image`` pipeline in the real Triton: equal to cn_clip, in batches, and whatever the image is."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from clip_client import ClipClient, Refused
from clip_standins import LIMIT, MODELS, ClipStandins, centred_cosines
from embedded_triton import TritonServer
from PIL import Image
from tiny_encoders import IMAGE_SIZE, TinyEncoder
from triton.counters import settled

from harness.program import eventually
from immich_pipelines.clip_encoders import Array, Encoders
from immich_pipelines.clip_image import ClipImage, ImageEmbedding, ImageJob
from immich_pipelines.clip_transform import image_transform
from immich_pipelines.stragglers import in_order
from immich_triton.export.clip.models import CLIP_MODELS

# The first test that needs the stand-ins makes them.
pytestmark = pytest.mark.timeout(2400)


# Equal to the original


@pytest.fixture(scope="module")
def clip(clip_triton: TritonServer) -> ClipClient:
    return ClipClient(clip_triton)


@pytest.fixture(scope="module", params=MODELS)
def answers(request: pytest.FixtureRequest, clip: ClipClient, clip_standins: ClipStandins) -> tuple[str, Array]:
    """The set's embeddings, asked for eight at a time."""
    files = [path.read_bytes() for path in clip_standins.images]
    return request.param, clip.images(files, CLIP_MODELS[request.param].visual, 8)


def test_embeddings_equal_the_originals(answers: tuple[str, Array], clip_standins: ClipStandins) -> None:
    model, embeddings = answers
    assert embeddings.shape == (len(clip_standins.images), CLIP_MODELS[model].dimension)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert centred_cosines(embeddings, clip_standins.expected(model, "image")).min() >= LIMIT


@pytest.mark.parametrize("mistake", ["bgr", "flipped", "bilinear"])
def test_a_mistake_would_be_noticed(mistake: str, answers: tuple[str, Array], clip_standins: ClipStandins) -> None:
    model, embeddings = answers
    assert centred_cosines(embeddings, clip_standins.expected(model, f"image {mistake}")).min() < LIMIT


def test_another_images_answer_would_be_noticed(answers: tuple[str, Array], clip_standins: ClipStandins) -> None:
    model, embeddings = answers
    swapped = embeddings.copy()
    swapped[[4, 9]] = swapped[[9, 4]]
    assert centred_cosines(swapped, clip_standins.expected(model, "image")).min() < LIMIT


@pytest.mark.parametrize("model", MODELS)
def test_the_tensor_equals_the_originals(model: str, clip_standins: ClipStandins) -> None:
    seen: list[Array] = []

    def call(_model: str, inputs: object, _outputs: object) -> list[Array]:
        assert isinstance(inputs, dict)
        seen.append(inputs["IMAGE"])
        raise RuntimeError("seen")

    pipeline = ClipImage(Encoders(clip_standins.models), call, threads=2, patience=60)
    jobs = [ImageJob(path.read_bytes(), CLIP_MODELS[model].visual) for path in clip_standins.images]
    list(pipeline.run(jobs))
    pipeline.close()
    (tensors,) = seen
    difference = np.abs(tensors - clip_standins.expected(model, "tensor")).max()
    assert difference <= 1e-5


def test_requests_are_batched(clip: ClipClient, clip_standins: ClipStandins) -> None:
    encoder = CLIP_MODELS["RN50"].visual
    counters = ("nv_inference_count", "nv_inference_exec_count")
    models = ("clip_image", encoder)

    def read() -> dict[tuple[str, str], float]:
        return {(counter, model): clip.count(counter, model) for counter in counters for model in models}

    def batched() -> bool:
        before = settled(read)
        clip.images([path.read_bytes() for path in clip_standins.images] * 2, encoder, concurrency=8)
        after = settled(read)
        ratios = []
        for model in models:
            requests, executions = (after[counter, model] - before[counter, model] for counter in counters)
            assert requests >= 2 * len(clip_standins.images)
            ratios.append(requests / executions)
        return min(ratios) > 1.5

    # On a busy machine requests may come one by one for a while.
    assert eventually(batched, 120)


def test_two_encoders_answer_at_the_same_time(clip: ClipClient, clip_standins: ClipStandins) -> None:
    jobs = [(path, model) for path in clip_standins.images[:8] for model in MODELS]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: clip.image_embedding(job[0].read_bytes(), CLIP_MODELS[job[1]].visual), jobs))
    for (path, model), embedding in zip(jobs, found, strict=True):
        expected = clip_standins.expected(model, "image")[clip_standins.images.index(path)]
        np.testing.assert_allclose(embedding, expected, atol=1e-5)


# Whatever the image is, with encoders small enough to compute the answer here


@pytest.fixture(scope="module")
def tiny(tiny_triton: TritonServer) -> ClipClient:
    return ClipClient(tiny_triton)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), pixels.tobytes())


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def expected(encoder: TinyEncoder, data: bytes) -> Array:
    with Image.open(io.BytesIO(data)) as image:
        tensor = image_transform(image.convert("RGB"), IMAGE_SIZE)
    result: Array = encoder.expected(tensor[None])[0]
    return result


def sixteen_bit() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 65536, (40, 50), dtype=np.uint16)
    return saved(Image.fromarray(pixels), "PNG")


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(noise(60, 40), "JPEG", exif=exif)


FRAMES = [noise(41, 40), noise(42, 40).resize((41, 40))]
ODD_IMAGES: dict[str, Callable[[], bytes]] = {
    "1x1": lambda: saved(noise(1, 1), "PNG"),
    "1x10000": lambda: saved(noise(1, 10_000), "PNG"),
    "10000x1": lambda: saved(noise(10_000, 1), "JPEG"),
    "16-bit": sixteen_bit,
    "CMYK": lambda: saved(noise(50, 40, "CMYK"), "JPEG"),
    "palette": lambda: saved(noise(50, 40).quantize(16), "PNG"),
    "palette with transparency": lambda: saved(noise(50, 40).quantize(16), "PNG", transparency=3),
    "grey": lambda: saved(noise(50, 40, "L"), "JPEG"),
    "alpha": lambda: saved(noise(50, 40, "RGBA"), "PNG"),
    "animated GIF": lambda: saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "animated WebP": lambda: saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True),
    "EXIF-rotated": rotated,
    "progressive": lambda: saved(noise(500, 400), "JPEG", progressive=True),
}


@pytest.mark.parametrize("kind", ODD_IMAGES)
def test_an_odd_image_gets_its_embedding(kind: str, tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    data = ODD_IMAGES[kind]()
    answer = tiny.image(data, "see_a")
    assert not isinstance(answer, Refused), answer
    embedding, size = answer
    np.testing.assert_allclose(embedding, expected(encoders["see_a"], data), atol=1e-5)
    with Image.open(io.BytesIO(data)) as image:
        # As stored: Immich's preview is upright already, and stock does not rotate either.
        assert size == (image.height, image.width)


def bomb() -> bytes:
    """Return a PNG of 200 megapixels and a few kilobytes."""
    width, height = 20_000, 10_000

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(height * (width // 8 + 1)), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BAD_IMAGES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: "这不是图片".encode(),
    "truncated JPEG": lambda: saved(noise(400, 300), "JPEG")[:9000],
    "truncated PNG": lambda: saved(noise(400, 300), "PNG")[:9000],
    "header only": lambda: saved(noise(40, 30), "JPEG")[:100],
    "zeros": lambda: bytes(5000),
    "bomb": bomb,
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_refused_and_the_next_request_works(
    kind: str, tiny: ClipClient, encoders: dict[str, TinyEncoder]
) -> None:
    answer = tiny.image(BAD_IMAGES[kind](), "see_a")
    assert isinstance(answer, Refused)
    assert answer.bad_input, answer
    good = saved(noise(64, 48), "PNG")
    np.testing.assert_allclose(tiny.image_embedding(good, "see_a"), expected(encoders["see_a"], good), atol=1e-5)


def test_bad_images_do_not_disturb_their_neighbours(tiny: ClipClient, encoders: dict[str, TinyEncoder]) -> None:
    files = [b"broken" if index % 3 == 0 else saved(noise(30 + index, 40), "PNG") for index in range(48)]
    with ThreadPoolExecutor(16) as pool:
        results = list(
            pool.map(lambda index: tiny.image(files[index], "see_a" if index % 2 == 0 else "see_b"), range(48))
        )
    for index, result in enumerate(results):
        if index % 3 == 0:
            assert isinstance(result, Refused)
            assert result.bad_input
        else:
            assert not isinstance(result, Refused), result
            encoder = encoders["see_a" if index % 2 == 0 else "see_b"]
            np.testing.assert_allclose(result[0], expected(encoder, files[index]), atol=1e-5)


def test_nan_from_the_encoder_is_a_fault_of_the_server(tiny: ClipClient) -> None:
    answer = tiny.image(saved(Image.new("RGB", (9, 9)), "PNG"), "see_a")
    assert isinstance(answer, Refused)
    assert answer.status == "500"
    assert "NaN" in answer.text


@pytest.mark.parametrize("encoder", ["", "nobody", "../see_a", "/etc"])
def test_an_unknown_encoder_is_a_fault_of_the_server(encoder: str, tiny: ClipClient) -> None:
    answer = tiny.image(saved(noise(9, 9), "PNG"), encoder)
    assert isinstance(answer, Refused)
    assert answer.status == "500"
    assert not answer.bad_input


def test_an_encoder_with_other_weights_than_on_disk_does_not_answer(
    tiny: ClipClient, encoders: dict[str, TinyEncoder]
) -> None:
    first = TinyEncoder(encoders["see_a"].models, "see_anew", 98, visual=True)
    first.write()
    tiny.load("see_anew")
    data = saved(noise(50, 40), "PNG")
    before = tiny.image_embedding(data, "see_anew")
    np.testing.assert_allclose(before, expected(first, data), atol=1e-5)
    other = TinyEncoder(first.models, "see_anew", 99, visual=True)
    other.write_record()
    answer = tiny.image(data, "see_anew")
    assert isinstance(answer, Refused)
    assert answer.status == "500"
    assert "restart Triton" in answer.text
    other.write()
    tiny.load("see_anew")
    after = tiny.image_embedding(data, "see_anew")
    np.testing.assert_allclose(after, expected(other, data), atol=1e-5)
    assert np.abs(before - after).max() > 0.01


def test_results_of_a_batch_keep_their_order(encoders: dict[str, TinyEncoder]) -> None:
    def call(model: str, inputs: object, _outputs: object) -> list[Array]:
        assert isinstance(inputs, dict)
        batch = inputs["IMAGE"]
        return [encoders[model].expected(batch), np.full((len(batch), 1), encoders[model].seed)]

    pipeline = ClipImage(Encoders(encoders["see_a"].models), call, threads=3)
    files = [saved(noise(20 + index, 30), "PNG") for index in range(7)] + [b""]
    names = ["see_a", "see_b", "see_a", "see_a", "see_b", "see_a", "nobody", "see_a"]
    results = in_order(pipeline.run([ImageJob(data, name) for data, name in zip(files, names, strict=True)]))
    pipeline.close()
    for data, name, result in zip(files[:6], names, results, strict=False):
        assert isinstance(result, ImageEmbedding)
        np.testing.assert_allclose(result.embedding, expected(encoders[name], data), atol=1e-5)
        assert result.fingerprint == encoders[name].seed
    assert "no usable" in str(results[6])
    assert "empty" in str(results[7])
