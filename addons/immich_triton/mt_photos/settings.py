"""The settings of mt-photos-ai's API: those of machine learning, and what MT-Photos' clients need besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, override

from immich_triton.core.option_kinds import Kind, Number, Secret
from immich_triton.core.options import option
from immich_triton.ml.settings import Settings as MachineLearning

WELL_KNOWN_KEY: Final = "mt_photos_ai_extra"
"""The key that mt-photos-ai has where nobody chose another (API_AUTH_KEY), and that MT-Photos suggests."""

SCORE: Final = Number(0, 1)


class ModelName(Kind[str]):
    """A model by any of its names: of the encoder's folder, or of Immich. Whether it exists the routes tell."""

    @override
    def read(self, name: str, value: str) -> str:
        return value.strip()


@dataclass(frozen=True)
class Settings(MachineLearning):
    """What MT-Photos adds; the *min* values are scores between 0 and 1."""

    key: str = option(
        "mt_photos_key",
        Secret(),
        "",
        "Where the key stands that every POST must carry in the header api-key: file:PATH or env:NAME. Empty: "
        f"{WELL_KNOWN_KEY}, which mt-photos-ai has by itself and everybody knows.",
    )
    clip: str = option(
        "mt_photos_clip",
        ModelName(),
        "",
        "The encoder that answers MT-Photos' CLIP requests: the name of its folder in the model repository, or the "
        "Immich model name that it is routed under. Required where several CLIP models are routed: vectors of two "
        "models must never mix.",
    )
    faces: str = option(
        "mt_photos_faces",
        ModelName(),
        "",
        "The face model that answers, named in the same way. Required where several are routed.",
    )
    min_face_score: float = option(
        "mt_photos_min_face_score",
        SCORE,
        "0.65",
        "Lowest score of a face that is told, 0 to 1; DETECTION_THRESH in mt-photos-ai.",
    )
    min_text_score: float = option(
        "mt_photos_min_text_score",
        SCORE,
        "0.5",
        "Lowest score of a line of text that is told, 0 to 1. 0.5 is RapidOCR's own, by which mt-photos-ai reads.",
    )

    @override
    def __post_init__(self) -> None:
        """Raise ValueError for what does not go together, and for what only the gateway of Immich has a use for."""
        super().__post_init__()
        foreign = {
            "immich_api_url": self.api_url,
            "immich_fallback_tasks": self.fallback_tasks,
            "immich_path_token": self.path_token,
            "immich_shadow": self.shadow,
        }
        if given := [name for name, value in foreign.items() if value]:
            raise ValueError(
                f"{given[0]} has no meaning for mt-photos-ai's API, which has no stock service behind it and a key of "
                "its own (mt_photos_key); set it for the gateway of Immich only (addons/immich_ml.py)"
            )


OPTIONS: Final = tuple(one for one in Settings.options() if one.name.startswith("mt_photos_"))
"""Those that the gateway of Immich does not have."""
