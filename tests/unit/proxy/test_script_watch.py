"""A script that mitmproxy has given up is loaded again when it is there, and only then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mitmproxy.addons.script import ScriptLoader
from mitmproxy.test import taddons

from immich_triton.proxy.script_watch import ScriptWatch

SOURCE = "class Addon:\n    pass\n\naddons = [Addon()]\n"


class Site:
    """A loader with one script, watched; time does not pass, a look is taken when a test says so."""

    def __init__(self, context: taddons.context, path: Path) -> None:
        self.context = context
        self.path = path
        self.live = False
        self.watch = ScriptWatch(lambda: self.live)
        self.loader: ScriptLoader = context.master.addons.get("scriptloader")

    @property
    def listed(self) -> list[str]:
        return list(self.context.options.scripts)

    def addon(self) -> object:
        (script,) = self.loader.addons
        script.loadscript()
        assert script.ns
        addon: object = script.ns.addons[0]
        return addon

    def give_up(self) -> None:
        """Do what mitmproxy does with a script whose file is gone."""
        self.context.options.update(scripts=[])

    def look(self) -> list[object]:
        """Take a look, and return the scripts that are new since."""
        before = list(self.loader.addons)
        self.watch._attend()
        return [script for script in self.loader.addons if script not in before]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    path = tmp_path / "gateway.py"
    path.write_text(SOURCE)
    loader = ScriptLoader()
    with taddons.context(loader) as context:
        context.options.update(scripts=[str(path)])
        site = Site(context, path)
        yield site
        context.options.update(scripts=[])
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_came_from_no_script_is_not_watched(site: Site) -> None:
    site.watch.watch(object())
    assert not site.watch.knows_one
    site.watch.watch(site.addon())
    assert site.watch.knows_one


async def test_a_script_that_was_gone_is_loaded_when_it_is_there(site: Site) -> None:
    site.watch.watch(site.addon())
    site.path.unlink()
    site.give_up()
    assert site.look() == []
    assert site.listed == []
    site.path.write_text(SOURCE)
    assert len(site.look()) == 1
    assert site.listed == [str(site.path)]


async def test_one_that_lives_is_left_alone(site: Site) -> None:
    site.watch.watch(site.addon())
    site.live = True
    site.give_up()
    assert site.look() == []
    assert site.listed == []


async def test_a_file_that_is_put_back_with_an_older_time_is_loaded(site: Site) -> None:
    site.watch.watch(site.addon())
    assert site.look() == [], "mitmproxy itself looks at what becomes newer"
    os.utime(site.path, (1, 1))
    assert len(site.look()) == 1
    assert site.look() == [], "once"


async def test_another_file_of_the_same_time_is_loaded(site: Site) -> None:
    site.watch.watch(site.addon())
    before = site.path.stat().st_mtime_ns
    site.path.write_text(f"{SOURCE}# another\n")
    os.utime(site.path, ns=(before, before))
    assert len(site.look()) == 1


async def test_it_is_loaded_as_soon_as_what_it_needs_is_there(site: Site) -> None:
    site.watch.watch(site.addon())
    usable = False
    site.watch.load_again_when(lambda: usable)
    assert site.look() == []
    usable = True
    assert len(site.look()) == 1
    assert site.look() == [], "and then its own fate is told anew"
