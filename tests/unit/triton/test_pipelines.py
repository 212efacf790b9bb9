"""What the client knows of a pipeline."""

from __future__ import annotations

from immich_triton.triton.pipelines import Pipeline


def test_a_pipeline_is_ready_with_all_that_it_calls() -> None:
    assert Pipeline("ocr", ("detection", "recognition"), ["det", "rec"]).all_models == ("ocr", "det", "rec")
    assert Pipeline("faces", (), ()).all_models == ("faces",)


def test_each_is_itself_and_has_parameters_of_its_own() -> None:
    first, second = (Pipeline("ocr", ("detection",), ()) for _ in range(2))
    assert first != second, "of two routes: a set of them keeps both"
    assert len({first, second}) == 2
    assert first.parameters == {}
    assert first.parameters is not second.parameters
    assert first.fingerprint is None
