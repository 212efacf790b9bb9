"""Two Tritons behind a HAProxy: one is killed under load, comes back, and answers with other weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import failover
import pytest
import tiny_encoders
from tiny_encoders import TinyEncoder

pytestmark = pytest.mark.xdist_group("supervisor")


@pytest.mark.timeout(600)
def test_no_request_fails_and_no_vector_is_of_other_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("haproxy") is None:
        pytest.skip("HAProxy is not installed: apt-get install haproxy")
    models, other = tmp_path / "models", tmp_path / "other"
    for folder in (models, other):
        folder.mkdir()
        tiny_encoders.repository(folder, "a")
    for encoder in (TinyEncoder(other, "see_a", 21, True), TinyEncoder(other, "read_a", 23, False)):
        encoder.write()
    tiny_encoders.route("see_a", "read_a", other)
    ended = failover.main(["--models", str(models), "--other", str(other), "--seconds", "3", "--clients", "4"])
    assert ended == 0, capsys.readouterr().out
