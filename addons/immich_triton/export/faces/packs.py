"""InsightFace's model packs: where they are, what is in them, and under which licence they come."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

LICENCE: Final = """\
InsightFace's pretrained models are available for NON-COMMERCIAL RESEARCH PURPOSES ONLY.
The code of InsightFace is MIT-licensed; that licence does not cover the models, nor those who download them.
    https://github.com/deepinsight/insightface#license
    https://github.com/deepinsight/insightface/tree/master/model_zoo
A commercial licence for the models is sold by InsightFace (recognition-oss-pack@insightface.ai).
This program downloads the models for you and changes only their inputs, outputs and batch axis; nothing is passed on.\
"""


@dataclass(frozen=True)
class Pack:
    """One pack; its name is also the model name that Immich knows it by."""

    name: str
    detector: str
    """File name of the detector, an SCRFD with landmarks."""
    recognizer: str
    """File name of the recogniser, which gives 512 numbers."""
    sha256: str
    """Of the archive as InsightFace publishes it."""

    @property
    def url(self) -> str:
        """Where InsightFace publishes the pack."""
        return f"https://github.com/deepinsight/insightface/releases/download/v0.7/{self.name}.zip"


# InsightFace states no hashes. Several unrelated public projects that download the same four files pin them, all to
# these values.
PACKS: Final = MappingProxyType(
    {
        pack.name: pack
        for pack in (
            Pack(
                "buffalo_l",
                "det_10g.onnx",
                "w600k_r50.onnx",
                "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
            ),
            Pack(
                "buffalo_m",
                "det_2.5g.onnx",
                "w600k_r50.onnx",
                "d98264bd8f2dc75cbc2ddce2a14e636e02bb857b3051c234b737bf3b614edca9",
            ),
            Pack(
                "buffalo_s",
                "det_500m.onnx",
                "w600k_mbf.onnx",
                "d85a87f503f691807cd8bb97128bdf7a0660326cd9cd02657127fa978bab8b5e",
            ),
            Pack(
                "antelopev2",
                "scrfd_10g_bnkps.onnx",
                "glintr100.onnx",
                "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
            ),
        )
    }
)


class PackError(ValueError):
    """The archive is not the pack it should be; the message says what is missing."""


def unpack(archive: Path, pack: Pack, folder: Path) -> tuple[Path, Path]:
    """Take the pack's two models out of the ZIP *archive* into *folder*; return detector and recogniser.

    Some packs hold their files at the top, others in a folder of their own: only the file name counts. Raises
    `PackError` when a file is missing, is there twice, or the archive is no ZIP file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return _take(opened, pack.detector, folder), _take(opened, pack.recognizer, folder)
    except zipfile.BadZipFile as error:
        raise PackError(f"{archive} cannot be read as a ZIP file: {error}") from None


def _take(archive: zipfile.ZipFile, name: str, folder: Path) -> Path:
    members = [member for member in archive.namelist() if PurePosixPath(member).name == name]
    if len(members) != 1:
        found = ", ".join(sorted(archive.namelist())) or "nothing"
        raise PackError(f"{archive.filename} should hold one {name}, but holds {found}")
    target = folder / name
    target.write_bytes(archive.read(members[0]))
    return target
