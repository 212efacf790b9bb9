"""What was busy, out of two looks at a gateway."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import busy
from benchmarks.busy import Busy


def test_two_looks_tell_shares_and_what_a_request_took() -> None:
    before = Busy(10.0, {"ocr_det": 1.0, "ocr_rec": 5.0, "face_det": 2.0}, {"gateway": 1.0})
    after = Busy(
        14.0, {"ocr_det": 2.0, "ocr_rec": 7.0, "face_det": 2.0}, {"gateway": 2.0, "decoding": 6.0, "ocr": 0.01}
    )
    assert busy.between(before, after, 100) == (
        "ocr_det 25% (10.0 ms a request), ocr_rec 50% (20.0 ms a request); cores: gateway 0.25, decoding 1.50"
    )
    assert "1000.0 ms a request" in busy.between(before, after, 0), "nobody was answered: no division by zero"


def test_a_process_is_known_by_what_it_runs(tmp_path: Path) -> None:
    # As Triton starts the process of a model: with the path of its file first, in the server's session.
    model = tmp_path / "models/ocr_det/1/model.onnx"
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    commands = {"ocr_det": [*waiting, str(model)], "decoding": [*waiting, "immich_pipelines.decoding.server"]}
    children = {role: subprocess.Popen(line, stdin=subprocess.PIPE) for role, line in commands.items()}
    try:
        session = os.getsid(0)
        assert busy._role(children["decoding"].pid, None, session) == "decoding"
        assert busy._role(children["ocr_det"].pid, 1, session) == "others", "Python itself has the path third"
        assert busy._role(children["ocr_det"].pid, children["ocr_det"].pid, session) == "gateway"
        assert busy._role(session, None, session) == "tritonserver"
        assert busy._role(children["ocr_det"].pid, None, None) is None
    finally:
        for child in children.values():
            child.communicate()
