"""A `Service` as a gateway has it, in the test's own event loop and without a gateway around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mitmproxy.test import taddons
from stand_in_triton import write_routes

from immich_triton.ml.configuration import Configuration
from immich_triton.ml.service import Service


@asynccontextmanager
async def configured_service(directory: Path, triton_url: str, **options: Any) -> AsyncIterator[Service]:
    """Give one with routes for OCR and CLIP in ``directory/models``, which are watched."""
    service = Service()
    with taddons.context() as context:
        context.master.addons.add(Configuration(service))
        context.options.update(
            immich_models=str(write_routes(directory / "models")),
            immich_state_dir=str(directory / "state"),
            immich_triton_url=triton_url,
            **options,
        )
        service.watch()
        # The second look, for which the first requests would wait a quarter of a second.
        service.need(service._routes).look_again()
        try:
            yield service
        finally:
            service.close()
            closing = (task for task in asyncio.all_tasks() if task.get_name().startswith("close a client"))
            await asyncio.gather(*closing)
