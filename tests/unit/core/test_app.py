"""What the addons of one product share."""

from __future__ import annotations

import asyncio

import pytest

from immich_triton.core.app import App
from immich_triton.core.errors import ProtocolError
from immich_triton.core.observer import Observer


class Configured(App[int]):
    """A product whose settings are a number."""

    def configure(self, settings: int) -> None:
        self._settings = settings


def test_without_settings_there_is_an_answer_and_no_attribute_error() -> None:
    app = Configured()
    assert not app.is_configured
    with pytest.raises(ProtocolError, match="no valid configuration") as caught:
        _ = app.settings
    assert caught.value.status == 503
    app.configure(0)  # a value that is false is one
    assert (app.is_configured, app.settings, app.need(0)) == (True, 0, 0)


def test_each_is_somebody_else_with_listeners_of_its_own() -> None:
    first, second = Configured(), Configured()
    assert first.id != second.id
    assert first.observers is not second.observers
    assert isinstance(first.observers, Observer)


async def test_what_runs_in_the_background_ends_with_it() -> None:
    app, ended = Configured(), asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def at_once() -> None:
        pass

    short, long = app.spawn(at_once(), "short"), app.spawn(forever(), "long")
    await short
    assert long.get_name().startswith("long ")
    assert not long.done()
    app.close()
    await asyncio.wait({long})
    assert long.cancelled()
    assert ended.is_set()
    app.close()  # nothing is left to stop
