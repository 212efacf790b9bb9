"""What was once ours stays ours: which CLIP names may be answered with which weights."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from immich_triton.core import state_file
from immich_triton.core.errors import ProtocolError
from immich_triton.ml.clip_ownership import Ownership
from immich_triton.ml.ledger import Ledger, LedgerError
from immich_triton.ml.route_file import Route

NAME = "ViT-B-16__openai"
OURS = Route("clip", (NAME,), (), "a" * 64, source=Path("models/see/route.toml"))
OTHERS = Route("clip", (NAME,), (), "b" * 64, source=Path("models/see/route.toml"))


@pytest.fixture
def ownership(tmp_path: Path) -> Ownership:
    return Ownership(tmp_path / "state")


async def test_a_name_is_owned_with_the_weights_that_answered_first(ownership: Ownership, tmp_path: Path) -> None:
    ownership.check()
    ownership.refuse_other_weights(OTHERS, NAME)
    ownership.refuse_without_route(NAME, tmp_path)
    for _ in range(2):
        await ownership.own(OURS, NAME)
    assert Ledger(tmp_path / "state").owned() == {NAME: "a" * 64}
    ownership.refuse_other_weights(OURS, NAME)
    with pytest.raises(ProtocolError, match=r"now has other weights \(route models/see/route\.toml\)") as caught:
        ownership.refuse_other_weights(OTHERS, NAME)
    assert caught.value.status == 503
    with pytest.raises(ProtocolError, match="now has other weights"):
        await ownership.own(OTHERS, NAME)


async def test_a_name_without_a_route_says_how_it_is_given_up(ownership: Ownership, tmp_path: Path) -> None:
    await ownership.own(OURS, NAME)
    with pytest.raises(ProtocolError, match=f"has no route in {tmp_path}; another model's vectors would") as caught:
        ownership.refuse_without_route(NAME, tmp_path)
    assert caught.value.status == 503
    assert str(caught.value.detail).endswith(f"immich-triton ledger --state-dir {tmp_path / 'state'} forget {NAME}")
    ownership.refuse_without_route("ViT-B-32__openai", tmp_path)


async def test_another_gateway_was_faster(ownership: Ownership, tmp_path: Path) -> None:
    ownership.refuse_other_weights(OURS, NAME)
    Ledger(tmp_path / "state").own(NAME, "b" * 64)
    with pytest.raises(ProtocolError, match="now has other weights"):
        await ownership.own(OURS, NAME)


async def test_requests_of_one_name_write_once_and_one_that_is_given_up_takes_nobody_along(
    ownership: Ownership, tmp_path: Path
) -> None:
    path = Ledger(tmp_path / "state").path
    with state_file.exclusive(path):  # as another process that writes
        asked = [asyncio.create_task(ownership.own(OURS, NAME)) for _ in range(3)]
        await asyncio.sleep(0)
        assert list(ownership._owning) == [NAME]
        asked[0].cancel()
        await asyncio.wait(asked[:1])
        assert asked[0].cancelled()
    await asyncio.gather(*asked[1:])
    assert Ledger(tmp_path / "state").owned() == {NAME: "a" * 64}
    assert ownership._owning == {}


async def test_a_ledger_that_cannot_be_read_stops_all_of_it(ownership: Ownership, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    Ledger(tmp_path / "state").path.write_text("{")
    for method in (
        ownership.check,
        lambda: ownership.refuse_without_route(NAME, tmp_path),
        lambda: ownership.refuse_other_weights(OURS, NAME),
    ):
        with pytest.raises(LedgerError, match=r"owned\.json"):
            method()
    with pytest.raises(LedgerError):
        await ownership.own(OURS, NAME)


async def test_a_failure_to_write_is_told_to_who_waits_and_tried_anew(ownership: Ownership, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file stands where the folder should")
    with pytest.raises(LedgerError):
        await ownership.own(OURS, NAME)
    (tmp_path / "state").unlink()
    await ownership.own(OURS, NAME)
