"""Words of Triton's HTTP API."""

from __future__ import annotations

from immich_triton.triton import wire


def test_a_key_goes_in_one_header_and_none_in_none() -> None:
    assert wire.key_headers("k") == {"x-triton-key": "k"}
    assert wire.key_headers("") == {}


def test_a_model_is_one_segment_of_a_path() -> None:
    assert wire.ready("ocr") == "/v2/models/ocr/ready"
    assert wire.config("a/b?c") == "/v2/models/a%2Fb%3Fc/config"
    assert wire.control("../x", "unload") == "/v2/repository/models/..%2Fx/unload"
    assert (wire.ABOUT, wire.LIVE, wire.INDEX) == ("/v2", "/v2/health/live", "/v2/repository/index")
