"""What mt-photos-ai's API can be told, and what it refuses, since nothing would come of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from immich_triton.ml.settings import OPTIONS as MACHINE_LEARNING
from immich_triton.mt_photos.settings import OPTIONS, Settings


def test_it_has_the_options_of_machine_learning_and_its_own() -> None:
    names = [one.name for one in Settings.options()]
    assert set(names) == {one.name for one in (*OPTIONS, *MACHINE_LEARNING)}
    assert len(names) == len(set(names))
    assert all(one.help and one.name.startswith("mt_photos_") for one in OPTIONS)


def test_the_default_scores_are_those_of_mt_photos_ai() -> None:
    assert (Settings().min_face_score, Settings().min_text_score) == (0.65, 0.5)


def test_the_key_is_never_given_itself(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a key\n")
    (option,) = (one for one in OPTIONS if one.name == "mt_photos_key")
    assert option.kind.read(option.name, f"file:{tmp_path}/key") == "a key"
    with pytest.raises(ValueError, match="must be file:PATH or env:NAME"):
        option.kind.read(option.name, "a key")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shadow", 0.1),
        ("path_token", "a" * 16),
        ("fallback_tasks", frozenset({"ocr"})),
    ],
)
def test_what_only_the_gateway_of_immich_can_do_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"immich_{name} has no meaning for mt-photos-ai's API"):
        dataclasses.replace(Settings(), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="immich_api_url has no meaning"):
        dataclasses.replace(Settings(), api_url="http://immich:2283", api_key="secret")
