"""CLIP end to end: Immich's requests, through the real gateway, to real encoders in the real Triton; never upstream."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_encoders
from clip_client import ClipClient
from clip_standins import LIMIT, MODELS, TEXTS, ClipStandins, centred_cosines
from embedded_triton import StartTriton, TritonServer
from gateway_process import GatewayProcess, running_gateway
from PIL import Image
from recorder import Recorder, recording_upstream
from tiny_encoders import TinyEncoder

from harness.program import eventually
from immich_triton.export.clip.models import CLIP_MODELS
from immich_triton.immich.ml_client import Answer, entries_for, predict

# The first test that needs the stand-ins makes them.
pytestmark = pytest.mark.timeout(2400)
NAME = tiny_encoders.NAME


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(autouse=True)
def _nothing_goes_upstream(upstream: Recorder) -> Iterator[None]:
    upstream.seen.clear()
    yield
    assert upstream.predictions() == []


def image_entries(name: str) -> dict[str, Any]:
    return entries_for("clip", name)


def text_entries(name: str) -> dict[str, Any]:
    return entries_for("clip-text", name)


def vector(answer: Answer) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The embedding, which travels as a string that holds a JSON array."""
    assert answer.status == 200, answer.body
    assert isinstance(answer.body["clip"], str)
    return np.array(json.loads(answer.body["clip"]), np.float32)


# cn_clip's architectures with few layers and random weights, against the original


@pytest.fixture(scope="module")
def gateway(
    clip_triton: TritonServer,
    upstream: Recorder,
    clip_standins: ClipStandins,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    with running_gateway(
        tmp_path_factory.mktemp("gateway"),
        models=clip_standins.models,
        triton_url=clip_triton.url,
        upstream=upstream.url,
        immich_allow_untrained="true",
    ) as process:
        yield process


@pytest.mark.parametrize("model", MODELS)
def test_images_get_the_originals_embeddings(model: str, gateway: GatewayProcess, clip_standins: ClipStandins) -> None:
    answers = [
        predict(gateway.url, image_entries(CLIP_MODELS[model].immich_name), image=path.read_bytes())
        for path in clip_standins.images
    ]
    ours = np.stack([vector(answer) for answer in answers])
    assert ours.shape[1] == CLIP_MODELS[model].dimension
    assert centred_cosines(ours, clip_standins.expected(model, "image")).min() >= LIMIT
    for path, answer in zip(clip_standins.images, answers, strict=True):
        with Image.open(path) as image:
            assert (answer.body["imageHeight"], answer.body["imageWidth"]) == (image.height, image.width)


@pytest.mark.parametrize("mistake", ["bgr", "flipped", "bilinear"])
def test_a_mistake_would_be_noticed(mistake: str, gateway: GatewayProcess, clip_standins: ClipStandins) -> None:
    entries = image_entries(CLIP_MODELS["RN50"].immich_name)
    ours = np.stack([vector(predict(gateway.url, entries, image=path.read_bytes())) for path in clip_standins.images])
    assert centred_cosines(ours, clip_standins.expected("RN50", f"image {mistake}")).min() < LIMIT


@pytest.mark.parametrize("model", MODELS)
def test_texts_get_the_originals_embeddings(model: str, gateway: GatewayProcess, clip_standins: ClipStandins) -> None:
    # A blank text is none for Immich's protocol; the pipeline's own tests have it.
    kept = [index for index, text in enumerate(TEXTS) if text.strip()]
    entries = text_entries(CLIP_MODELS[model].immich_name)
    answers = [predict(gateway.url, entries, text=TEXTS[index]) for index in kept]
    assert all(answer.body.keys() == {"clip"} for answer in answers)
    ours = np.stack([vector(answer) for answer in answers])
    assert centred_cosines(ours, clip_standins.expected(model, "text")[kept]).min() >= LIMIT
    assert centred_cosines(ours, clip_standins.expected(model, "text changed")[kept]).min() < LIMIT


def test_a_name_with_colons_is_the_same_name(gateway: GatewayProcess) -> None:
    one, other = (predict(gateway.url, text_entries(f"ViT-B-16{mark}openai"), text="猫") for mark in ("::", "__"))
    assert one.body == other.body
    assert one.status == 200


# Whatever fails, with encoders of a few kilobytes


@contextmanager
def site(triton: TritonServer, routes: Path, upstream: Recorder, deadline: int) -> Iterator[GatewayProcess]:
    """Run a gateway with this deadline in seconds, before *triton*, and with the routes of the folder *routes*."""
    directory = routes.with_name(f"{routes.name}-gateway")
    directory.mkdir()
    with running_gateway(
        directory,
        models=routes,
        triton_url=triton.url,
        upstream=upstream.url,
        immich_deadline=deadline,
        immich_query_deadline=deadline,
    ) as process:
        yield process


@pytest.fixture
def routes(encoders: dict[str, TinyEncoder], tmp_path: Path) -> Path:
    """Copies of the routes, for a test to change."""
    return copied(encoders["see_a"].models, tmp_path / "routes")


@pytest.fixture
def changing(tiny_triton: TritonServer, routes: Path, upstream: Recorder) -> Iterator[GatewayProcess]:
    """A gateway of the test's own, with `routes`."""
    with site(tiny_triton, routes, upstream, deadline=60) as process:
        yield process


@pytest.fixture(scope="module")
def tiny(
    tiny_triton: TritonServer,
    encoders: dict[str, TinyEncoder],
    upstream: Recorder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    """A gateway for tests that leave it as it is."""
    routes = copied(encoders["see_a"].models, tmp_path_factory.mktemp("tiny") / "routes")
    with site(tiny_triton, routes, upstream, deadline=60) as process:
        yield process


def photo(colour: str = "orange") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


def ask_both(gateway: GatewayProcess, name: str = NAME) -> list[Answer]:
    with ThreadPoolExecutor(2) as pool:
        image = pool.submit(predict, gateway.url, image_entries(name), image=photo())
        text = pool.submit(predict, gateway.url, text_entries(name), text="一只猫")
        return [image.result(), text.result()]


def test_without_triton_clip_gets_503_and_nothing_reaches_the_upstream(
    triton_server: StartTriton, upstream: Recorder, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    tiny_encoders.repository(models, pairs="a")
    with triton_server(models) as triton, site(triton, models, upstream, deadline=2) as gateway:
        # Eventually: a busy machine may need more than its two seconds for the first answer.
        assert eventually(lambda: [answer.status for answer in ask_both(gateway)] == [200, 200])
        triton.stop_at_once()
        for _ in range(2):
            assert [answer.status for answer in ask_both(gateway)] == [503, 503]


def test_a_name_that_lost_its_route_gets_503_with_what_to_do(changing: GatewayProcess, routes: Path) -> None:
    assert [answer.status for answer in ask_both(changing)] == [200, 200]
    (routes / "see_a/route.toml").unlink()
    for answer in _until_changed(changing):
        assert answer.status == 503
        assert NAME in str(answer.body)
        assert f"forget {NAME}" in str(answer.body)


def test_a_name_that_comes_back_with_other_weights_gets_503(
    changing: GatewayProcess, routes: Path, encoders: dict[str, TinyEncoder]
) -> None:
    assert [answer.status for answer in ask_both(changing)] == [200, 200]
    models = encoders["see_a"].models
    tiny_encoders.route("see_a", "read_a", models, weights_sha256="b2" * 32, routes=routes)
    for answer in _until_changed(changing):
        assert answer.status == 503
        assert f"forget {NAME}" in str(answer.body)


def _until_changed(gateway: GatewayProcess) -> list[Answer]:
    """The first answers that are no 200 any more: the gateway looks for changed routes by itself."""
    answers: list[Answer] = []

    def changed() -> bool:
        answers[:] = ask_both(gateway)
        return all(answer.status != 200 for answer in answers)

    assert eventually(changed)
    return answers


def test_only_the_weights_of_the_route_answer(triton_server: StartTriton, upstream: Recorder, tmp_path: Path) -> None:
    """Triton and the gateway on two machines: the gateway has copies of the routes, and no more."""
    here, there = tmp_path / "here", tmp_path / "there"
    tiny_encoders.repository(tmp_path / "before", pairs="a")
    # Exported anew there, with other weights under the same names.
    for number, encoder in enumerate(tiny_encoders.repository(there, pairs="a").values()):
        replace(encoder, seed=100 + number).write()
    tiny_encoders.route("see_a", "read_a", there)
    older = "".join(
        line
        for line in (there / "see_a/route.toml").read_text().splitlines(keepends=True)
        if not line.startswith("fingerprint")
    )
    (there / "see_a/route.toml").write_text(older)
    with (
        triton_server(there) as triton,
        running_gateway(
            tmp_path, models=copied(tmp_path / "before", here), triton_url=triton.url, upstream=upstream.url
        ) as gateway,
    ):
        assert eventually(lambda: all("other weights" in str(answer.body) for answer in ask_both(gateway)), 120)
        assert [answer.status for answer in ask_both(gateway)] == [503, 503]
        # The start of Triton has added what the route of an older export lacks.
        assert (there / "see_a/route.toml").read_text().count("fingerprint = ") == 2
        copied(there, here)
        # No name was owned meanwhile: nothing has to be forgotten first.
        assert eventually(lambda: [answer.status for answer in ask_both(gateway)] == [200, 200])

        for pipeline in ("clip_image", "clip_text"):
            config = there / pipeline / "config.pbtxt"
            older, count = re.subn(r',\s*\{ name: "FINGERPRINT".*\}', "", config.read_text())
            assert count == 1
            config.write_text(older)
            ClipClient(triton).load(pipeline)
        for answer in ask_both(gateway):
            assert answer.status == 503
            assert "no output FINGERPRINT" in str(answer.body)


def copied(models: Path, target: Path) -> Path:
    """Copy the routes of *models*, as the README says for a gateway on another machine."""
    for path in models.glob("*/route.toml"):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        new = target / path.parent.name / "new"
        shutil.copy(path, new)
        new.replace(target / path.parent.name / path.name)
    return target


def test_an_embedding_of_the_wrong_size_is_no_answer(
    tiny_triton: TritonServer, encoders: dict[str, TinyEncoder], upstream: Recorder, tmp_path: Path
) -> None:
    models, routes = encoders["see_a"].models, tmp_path / "routes"
    for name in ("see_short", "read_short"):
        TinyEncoder(models, name, 31, visual=name == "see_short", dimension=511).write()
        ClipClient(tiny_triton).load(name)
    tiny_encoders.route("see_short", "read_short", models, routes=routes)
    with site(tiny_triton, routes, upstream, deadline=60) as gateway:
        answers = ask_both(gateway)
    assert [answer.status for answer in answers] == [500, 500]
    assert all("511" in str(answer.body) for answer in answers)


def test_nan_is_no_answer(tiny: GatewayProcess) -> None:
    answer = predict(tiny.url, image_entries(NAME), image=photo("black"))
    assert answer.status >= 500
    assert "clip" not in answer.body


def test_a_bad_image_is_a_400_and_the_next_request_works(tiny: GatewayProcess) -> None:
    answer = predict(tiny.url, image_entries(NAME), image=b"no image")
    assert answer.status == 400
    assert [answer.status for answer in ask_both(tiny)] == [200, 200]


def test_untrained_weights_are_not_answered_from_unless_allowed(
    clip_standins: ClipStandins, upstream: Recorder, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="immich_allow_untrained"):  # noqa: SIM117 - what must raise is the start
        with running_gateway(
            tmp_path, models=clip_standins.models, triton_url="http://127.0.0.1:1", upstream=upstream.url
        ):
            pass
