"""Fixtures for every test."""

from __future__ import annotations

import pytest
from embedded_triton import StartTriton, running


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
