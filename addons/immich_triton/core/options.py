"""The gateway's options: one table, from which mitmproxy's options and docs/reference.md are made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final


def default_state_dir() -> Path:
    """Return the state directory of the XDG specification. Not in the project: it must outlive a fresh clone."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "immich-triton"


@dataclass(frozen=True)
class Setting:
    """One mitmproxy option; *shown_default* is documented where the real default depends on the machine."""

    name: str
    type: Any
    default: Any
    help: str
    shown_default: str = ""


SETTINGS: Final = (
    Setting(
        "immich_triton_url",
        str,
        "http://127.0.0.1:8000",
        "Address of Triton's HTTP endpoint; https:// is understood too.",
    ),
    Setting(
        "immich_triton_key",
        str,
        "",
        "Where the key for a Triton on another machine stands: file:PATH or env:NAME. It is sent in the header "
        "x-triton-key with every request; start Triton with "
        "--http-restricted-api=inference,model-repository:x-triton-key=KEY.",
    ),
    Setting(
        "immich_models",
        str,
        "triton_models",
        "Folder of the model repository that Triton serves. The gateway reads only the route.toml files in it, which "
        "say which Immich model names are answered by Triton, and reads them again when they change.",
    ),
    Setting(
        "immich_state_dir",
        str,
        str(default_state_dir()),
        "Folder for what must survive a restart: the ledger of CLIP model names that were ever answered by Triton, and "
        "what Immich has to be asked to catch up on.",
        shown_default="~/.local/state/immich-triton",
    ),
    Setting(
        "immich_allow_untrained",
        bool,
        False,
        "Answer from models with random weights too. Such models are made for tests; their search results are noise.",
    ),
    Setting(
        "immich_deadline",
        int,
        240,
        "Seconds an image request may take in all, waiting for Triton included, before it gets 503. Immich does not "
        "retry a failed photo, so wait long; it gives up by itself at 300.",
    ),
    Setting(
        "immich_query_deadline",
        int,
        10,
        "Seconds a text query may take in all: a person is waiting for the search result.",
    ),
    Setting(
        "immich_triton_timeout",
        int,
        60,
        "Seconds one call may be at Triton, and as many again for each round of calls that Triton has to do before it, "
        "until Triton is asked whether the models are still ready. If they are, the call is waited for until the "
        "deadline of its request, and never sent a second time; if not, it is given up and sent again when they are.",
    ),
    Setting(
        "immich_max_at_triton",
        int,
        0,
        "Calls of one pipeline that are at Triton at the same time; the rest waits in the gateway, where a client that "
        "goes away takes its request with it. 0 means: as many as the pipeline's config can work on (instances times "
        "batch size) and two more.",
    ),
    Setting(
        "immich_fallback_tasks",
        Sequence[str],
        [],
        "Tasks that the stock ML answers while Triton cannot: ocr, facial-recognition. Name facial-recognition only "
        "when the stock ML has the same weights. clip is refused: two models' vectors must never mix.",
    ),
    Setting(
        "immich_max_body_mib",
        int,
        50,
        "Largest body of a /predict, in MiB; a larger one gets 413 before it is read. Immich sends previews of 1 MiB.",
    ),
    Setting(
        "immich_max_waiting_mib",
        int,
        256,
        "All /predict bodies that the gateway holds at the same time, in MiB. Over it a request gets 503 with "
        "Retry-After before its body is read; text queries are let through.",
    ),
    Setting(
        "immich_max_parts",
        int,
        100,
        "Most fields, and most files, in the form of one /predict; more get 400. Immich sends two parts.",
    ),
    Setting(
        "immich_max_pixels",
        int,
        100_000_000,
        "Most pixels (width times height) of an image. The pipelines check it before they decode; a larger image gets "
        "400. Immich's previews have 2 to 5 million.",
    ),
    Setting(
        "immich_max_faces",
        int,
        300,
        "Most faces of one image, the ones with the best scores. Each costs a run of the recognition model, and with a "
        "minScore near 0 a single photo has thousands.",
    ),
    Setting(
        "immich_max_connections",
        int,
        1000,
        "Most client connections at the same time; a further one is closed at once.",
    ),
    Setting(
        "immich_header_timeout",
        int,
        10,
        "Seconds from the first byte of a request to the end of its headers, the TLS handshake included; then 408.",
    ),
    Setting(
        "immich_body_timeout",
        int,
        60,
        "Seconds the body of a /predict may take to arrive; for a request that passes through, the longest pause in "
        "its body. Then 408.",
    ),
    Setting(
        "immich_upstream_timeout",
        int,
        290,
        "Longest silence of the stock ML before what passes through gets 504. Long, because the stock ML fetches its "
        "models while the first request waits. Connecting may take 10 s.",
    ),
    Setting(
        "immich_drain_timeout",
        int,
        245,
        "Seconds that requests in flight are given to finish after SIGTERM or Ctrl-C; a little more than "
        "immich_deadline, and what stops the gateway (Docker, systemd) must wait longer still. Meanwhile /ping and new "
        "requests get 503.",
    ),
    Setting(
        "immich_path_token",
        str,
        "",
        "Secret first segment of every path: a client that does not ask for /TOKEN/… gets 404. In Immich 3.0 and later "
        "set the machine learning URL to http://gateway:3004/TOKEN/ (with the slash at the end). Given as file:PATH or "
        "env:NAME, where it stands.",
    ),
    Setting(
        "immich_api_url",
        str,
        "",
        "Address of the Immich server, e.g. http://immich-server:2283. With it and immich_api_key the gateway asks "
        "Immich to run what is missing after an outage.",
    ),
    Setting(
        "immich_api_key",
        str,
        "",
        "API key of an Immich administrator with the permission job.create. Given as file:PATH or env:NAME, where it "
        "stands.",
    ),
    Setting(
        "immich_keep_flows",
        int,
        500,
        "How many flows mitmweb and mitmproxy keep to look at, with their images; the oldest are removed. 0 keeps all, "
        "and then memory grows with every request. mitmdump keeps none.",
    ),
    Setting(
        "immich_shadow",
        str,
        "0",
        "Share, 0 to 1, of the OCR and face requests answered by Triton that are also sent to the upstream in the "
        "background, to compare the answers (metrics immich_gateway_shadow_*). Never delays or changes an answer.",
    ),
    Setting(
        "immich_metrics_listen",
        str,
        "127.0.0.1:9464",
        "Address, HOST:PORT, of the metrics for Prometheus (/metrics) and of the health of the process (/healthz) and "
        "of the routed models (/readyz). Not for strangers: it is apart from the port that Immich uses. Empty: none.",
    ),
)
