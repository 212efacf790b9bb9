"""The error that ends a request with an answer."""

from __future__ import annotations

import pytest

from immich_triton.core.errors import ProtocolError


@pytest.mark.parametrize("detail", ["Invalid request format.", [{"loc": ["body"]}], None])
def test_it_carries_its_answer(detail: object) -> None:
    error = ProtocolError(422, detail)
    assert (error.status, error.detail, error.args) == (422, detail, (detail,))
    assert str(error) == str(detail)
