"""The gateway's settings: its options, declared once, and what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, override

from immich_triton.core.option_kinds import Flag, Folder, Integer, Kind, Number, Secret, SocketFile, Url
from immich_triton.core.options import option
from immich_triton.proxy.settings import ProxySettings

FALLBACK_TASKS: Final = ("ocr", "facial-recognition")

PATIENCE: Final = Integer(1, 299, why="Immich gives up at 300")
"""Seconds, of which Immich waits 300."""


def default_state_dir() -> Path:
    """Return the state directory of the XDG specification. Not in the project: it must outlive a fresh clone."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "immich-triton"


class FallbackTasks(Kind[frozenset[str]]):
    """Tasks that another model may answer."""

    type: ClassVar[Any] = Sequence[str]

    @property
    @override
    def allowed(self) -> str:
        return ", ".join(FALLBACK_TASKS)

    @override
    def read(self, name: str, value: Sequence[str]) -> frozenset[str]:
        if "clip" in value:
            raise ValueError(
                f"{name} must not name clip: another model's vectors have the same size, mix with ours unnoticed, and "
                "spoil the search for good"
            )
        if unknown := set(value) - set(FALLBACK_TASKS):
            raise ValueError(f"{name} may name {' and '.join(FALLBACK_TASKS)}, not {sorted(unknown)}")
        return frozenset(value)


@dataclass(frozen=True)
class Settings(ProxySettings):
    """What machine learning adds. Times are in seconds; an empty secret or URL of the API means there is none."""

    triton_url: str = option(
        "immich_triton_url",
        Url(),
        "http://127.0.0.1:8000",
        "Address of Triton's HTTP endpoint; https:// is understood too.",
    )
    triton_key: str = option(
        "immich_triton_key",
        Secret(),
        "",
        "Where the key for a Triton on another machine stands: file:PATH or env:NAME. It is sent in the header "
        "x-triton-key with every request; start Triton with "
        "--http-restricted-api=inference,model-repository:x-triton-key=KEY.",
    )
    supervisor: Path | None = option(
        "immich_supervisor",
        SocketFile(),
        "",
        "Socket of the supervisor that unloads models which nobody asks for, and loads them again for a request. "
        "`immich-triton run` sets it. Empty for any other Triton: a model that is not loaded is a fault there.",
    )
    models: Path = option(
        "immich_models",
        Folder(),
        "triton_models",
        "Folder of the model repository that Triton serves. The gateway reads only the route.toml files in it, which "
        "say which Immich model names are answered by Triton, and reads them again when they change.",
    )
    state_dir: Path = option(
        "immich_state_dir",
        Folder(),
        str(default_state_dir()),
        "Folder for what must survive a restart: the ledger of CLIP model names that were ever answered by Triton, and "
        "what Immich has to be asked to catch up on.",
        shown_default="~/.local/state/immich-triton",
    )
    allow_untrained: bool = option(
        "immich_allow_untrained",
        Flag(),
        default=False,
        help="Answer from models with random weights too. Such models are made for tests; their search results are "
        "noise.",
    )
    deadline: int = option(
        "immich_deadline",
        PATIENCE,
        240,
        "Seconds an image request may take in all, waiting for Triton included, before it gets 503. Immich does not "
        "retry a failed photo, so wait long; it gives up by itself at 300.",
    )
    query_deadline: int = option(
        "immich_query_deadline",
        PATIENCE,
        10,
        "Seconds a text query may take in all: a person is waiting for the search result.",
    )
    triton_timeout: int = option(
        "immich_triton_timeout",
        PATIENCE,
        60,
        "Seconds one call may be at Triton, and as many again for each round of calls that Triton has to do before it, "
        "until Triton is asked whether the models are still ready. If they are, the call is waited for until the "
        "deadline of its request, and never sent a second time; if not, it is given up and sent again when they are.",
    )
    max_at_triton: int = option(
        "immich_max_at_triton",
        Integer(0, 4096),
        0,
        "Calls of one pipeline that are at Triton at the same time; the rest waits in the gateway, where a client that "
        "goes away takes its request with it. 0 means: as many as the pipeline's config can work on (instances times "
        "batch size) and two more.",
    )
    fallback_tasks: frozenset[str] = option(
        "immich_fallback_tasks",
        FallbackTasks(),
        [],
        "Tasks that the stock ML answers while Triton cannot: ocr, facial-recognition. Name facial-recognition only "
        "when the stock ML has the same weights. clip is refused: two models' vectors must never mix.",
    )
    max_parts: int = option(
        "immich_max_parts",
        Integer(2, 1000),
        100,
        "Most fields, and most files, in the form of one /predict; more get 400. Immich sends two parts.",
    )
    max_pixels: int = option(
        "immich_max_pixels",
        Integer(1, 178_956_970),  # Pillow refuses more by itself, whatever it is told
        100_000_000,
        "Most pixels (width times height) of an image. The pipelines check it before they decode; a larger image gets "
        "400. Immich's previews have 2 to 5 million.",
    )
    max_faces: int = option(
        "immich_max_faces",
        Integer(1, 16_800),  # more places than that the detector does not look at
        300,
        "Most faces of one image, the ones with the best scores. Each costs a run of the recognition model, and with a "
        "minScore near 0 a single photo has thousands.",
    )
    api_url: str = option(
        "immich_api_url",
        Url(optional=True),
        "",
        "Address of the Immich server, e.g. http://immich-server:2283. With it and immich_api_key the gateway asks "
        "Immich to run what is missing after an outage.",
    )
    api_key: str = option(
        "immich_api_key",
        Secret(),
        "",
        "API key of an Immich administrator with the permission job.create. Given as file:PATH or env:NAME, where it "
        "stands.",
    )
    shadow: float = option(
        "immich_shadow",
        Number(0, 1, example="0.02"),
        "0",
        "Share, 0 to 1, of the OCR and face requests answered by Triton that are also sent to the upstream in the "
        "background, to compare the answers (metrics immich_gateway_shadow_*). Never delays or changes an answer.",
    )

    @override
    def __post_init__(self) -> None:
        """Raise ValueError for what does not go together."""
        super().__post_init__()
        if bool(self.api_url) != bool(self.api_key):
            raise ValueError("immich_api_url and immich_api_key belong together: set both, or none")


OPTIONS: Final = Settings.options()
