"""JSON as stock Immich ML writes it."""

from __future__ import annotations

import numpy as np
import pytest

from immich_triton.core.json_text import dump


def test_numbers_of_numpy_have_their_shortest_digits() -> None:
    third = np.float32(1) / np.float32(3)
    assert dump({"score": third, "box": np.array([0.1, 2], np.float32)}) == b'{"score":0.33333334,"box":[0.1,2.0]}'
    assert dump(np.int64(7)) == b"7"


def test_it_is_compact_and_leaves_chinese_as_it_is() -> None:
    assert dump({"a": [1, "猫"], "b": None}) == '{"a":[1,"猫"],"b":null}'.encode()


def test_what_has_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        dump({"a": object()})
