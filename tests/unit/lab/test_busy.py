"""What was busy, out of two looks at a gateway."""

from __future__ import annotations

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
