"""The multipart-form-data-conformance suite, with the exceptions that stock's parser makes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

import pytest

from immich_triton.core.paths import PROJECT
from immich_triton.export.wheels import fetch_wheel_files
from immich_triton.ml.forms import FormError, read_parts
from immich_triton.ml.plain_forms import read_plain

PACKAGE: Final = "multipart-form-data-conformance==0.1a0"
SHA256: Final = "9250810800cb227da5bd4ae0a61cd7d92595f92968125dec3ee7c97b6cc37029"

REFUSED_BY_STOCK: Final = {"085-header-folding", "107-preamble-content", "061-lf-only-lenient", "062-mixed-endings"}
"""What the suite wants to be read leniently, python-multipart refuses; stock ML answers 400 and so do we."""


@pytest.fixture(scope="module")
def suite() -> Iterator[zipfile.ZipFile]:
    """Give the package, checked."""
    cache = PROJECT / ".cache" / "wheels"
    fetch_wheel_files(PACKAGE, SHA256, [], cache)
    (archive,) = cache.glob("multipart-form-data-conformance*/*.whl")
    with zipfile.ZipFile(archive) as opened:
        yield opened


def test_the_suite(suite: zipfile.ZipFile) -> None:
    cases = [PurePosixPath(name).parent for name in suite.namelist() if name.endswith("/test.json")]
    assert len(cases) > 50
    for case in cases:
        expected = json.loads(suite.read(f"{case}/test.json"))["expected"]
        headers = {key.lower(): value for key, value in json.loads(suite.read(f"{case}/headers.json")).items()}
        body = suite.read(f"{case}/input.raw")
        if not expected["valid"] or case.name in REFUSED_BY_STOCK:
            with pytest.raises(FormError):
                read_parts(headers["content-type"], body)
            assert read_plain(headers["content-type"], body) is None, case
        else:
            parts = read_parts(headers["content-type"], body)
            assert [(part.name, len(part.value)) for part in parts] == [
                (part["name"], part["body_size"]) for part in expected["parts"]
            ], case
            assert read_plain(headers["content-type"], body) in (None, parts), case
