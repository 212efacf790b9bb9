"""Fixtures for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from embedded_triton import StartTriton, TritonServer, running

if TYPE_CHECKING:
    from clip_standins import ClipStandins
    from tiny_encoders import TinyEncoder

pytest_plugins = ["tiers"]

# A busy machine is no failure: how long an example takes says nothing here.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> StartTriton:
    """Give ``triton_server(models_dir)``, a context manager that runs the real embedded Triton over that folder.

    Starting takes about two seconds plus the loading of the models: share a server in a module or session fixture::

        @pytest.fixture(scope="module")
        def server(triton_server: StartTriton, ocr_models: Path) -> Iterator[TritonServer]:
            with triton_server(ocr_models) as server:
                yield server
    """
    return lambda models: running(models, tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="session")
def ocr_models() -> Path:
    """Give a model repository with the OCR models as ``export_ocr.py`` writes them, and the ``ocr`` pipeline.

    The first time takes half a minute and needs the package index, to download about 50 MB.
    """
    import ocr_exports

    return ocr_exports.build()


@pytest.fixture(scope="session")
def gpu_ocr_models() -> Path:
    """Give what `ocr_models` gives, as it is written for a GPU."""
    import ocr_exports

    return ocr_exports.build(gpu=True)


@pytest.fixture(scope="session")
def face_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a model repository with the stand-in face models, exported like a pack, and the ``faces`` pipeline.

    ``standin`` answers for ``buffalo_l``; ``standin_recorded``, whose embeddings are those of ``data/stock``, for
    ``buffalo_m``.
    """
    import face_standins  # takes a second, which most test runs need not spend

    models = tmp_path_factory.mktemp("face-models") / "models"
    face_standins.install(models, pack="standin", name="buffalo_l")
    face_standins.install(models, pack="standin_recorded", name="buffalo_m", as_recorded=True)
    return models


@pytest.fixture(scope="session")
def clip_standins() -> ClipStandins:
    """Give a model repository with two small Chinese-CLIP models of random weights, and what the original computes.

    The first time takes minutes (an environment with torch, two exports): tests that use it need a longer time-out.
    """
    import clip_standins

    return clip_standins.build()


# Servers that many modules share: each costs seconds to start. A test that changes a model changes one of its own.


@pytest.fixture(scope="session")
def clip_triton(triton_server: StartTriton, clip_standins: ClipStandins) -> Iterator[TritonServer]:
    """Give a server over `clip_standins`."""
    with triton_server(clip_standins.models) as server:
        yield server


@pytest.fixture(scope="session")
def ocr_triton(
    triton_server: StartTriton, ocr_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """Give a server over `ocr_models` and what ``ocr_exports.for_server`` adds to them."""
    import ocr_exports

    models = tmp_path_factory.mktemp("ocr") / "models"
    ocr_exports.for_server(ocr_models, models)
    with triton_server(models) as server:
        yield server


@pytest.fixture(scope="session")
def face_triton(triton_server: StartTriton, face_models: Path) -> Iterator[TritonServer]:
    """Give a server over `face_models`."""
    with triton_server(face_models) as server:
        yield server


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyEncoder]:
    """Give the encoders of ``tiny_encoders.repository``, by name; `tiny_triton` serves them."""
    import tiny_encoders

    return tiny_encoders.repository(tmp_path_factory.mktemp("tiny-encoders") / "models")


@pytest.fixture(scope="session")
def tiny_triton(triton_server: StartTriton, encoders: dict[str, TinyEncoder]) -> Iterator[TritonServer]:
    """Give a server over `encoders`."""
    with triton_server(encoders["see_a"].models) as server:
        yield server
