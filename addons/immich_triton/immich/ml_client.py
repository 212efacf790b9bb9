"""Ask a machine-learning service the way Immich does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from requests_toolbelt import MultipartEncoder

from immich_triton.core import direct_requests

ENTRIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "ocr": {
        "ocr": {
            "detection": {"modelName": "PP-OCRv5_mobile", "options": {"minScore": 0.5, "maxResolution": 736}},
            "recognition": {"modelName": "PP-OCRv5_mobile", "options": {"minScore": 0.8}},
        }
    },
    "clip": {"clip": {"visual": {"modelName": "ViT-B-16__openai"}}},
    "clip-text": {"clip": {"textual": {"modelName": "ViT-B-16__openai", "options": {"language": "zh-CN"}}}},
    "faces": {
        "facial-recognition": {
            "detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}},
            "recognition": {"modelName": "buffalo_l"},
        }
    },
}
"""What Immich sends in ``entries`` with its default settings, by task; for CLIP another name than its default
(``ViT-B-32__openai``): the one that Chinese-CLIP is exported under.
"""


NOT_FOUND: Final = "if the gateway wants a token (immich_path_token), add it to the address: --url http://…/TOKEN"
"""What to do about 404: an Immich ML knows ``/ping`` and ``/predict``."""


_PATH: Final = re.compile(r"([^/?#]*)(.*)", re.DOTALL)
_ADDRESS: Final = re.compile(r"\w+://[^\s'\"]+")
# As urllib3 words it: "… Max retries exceeded with url: /path (Caused by Error(<connection>, 'what happened'))".
_CAUSED_BY: Final = re.compile(r"\(Caused by (.*)\)$", re.DOTALL)
_SAID: Final = re.compile(r", '([^']*)'\)$")


@dataclass(frozen=True)
class Answer:
    """The answer to one request: HTTP status, parsed JSON (or the text when it is none), seconds it took, headers."""

    status: int
    body: Any
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)


def entries_for(task: str, model: str | None = None) -> dict[str, Any]:
    """Return Immich's ``entries`` of a task, with another model name where one is given."""
    (name, types) = next(iter(ENTRIES[task].items()))
    return {name: {type_: {**entry, "modelName": model or entry["modelName"]} for type_, entry in types.items()}}


def shown(url: str) -> str:
    """Return an address for people: without its path, which may be a secret (``immich_path_token``).

    Every program that says a machine-learning address says it so; also one that somebody wrote without its scheme.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    host, path = _PATH.match(rest).groups()  # type: ignore[union-attr]  # it matches every text
    return f"{scheme}{separator}{host.rpartition('@')[2]}{'/…' if path.strip('/') else ''}"


def cause(problem: Exception) -> str:
    """Return what is at the end of a chain of wrapped errors.

    Without the address, which the caller says better, and without its path, which urllib3 quotes and may be a secret.
    """
    text = str(problem)
    if wrapped := _CAUSED_BY.search(text):
        text = wrapped[1]
    if said := _SAID.search(text):
        text = said[1]
    text = text.rpartition(": ")[2].rstrip("\"')") if ": " in text else text
    return _ADDRESS.sub(lambda address: shown(address[0]), text)


def encode(entries: Mapping[str, Any], *, image: bytes | None = None, text: str | None = None) -> tuple[str, bytes]:
    """Return content type and body of a ``/predict`` request, parts in Immich's order."""
    fields: dict[str, Any] = {"entries": json.dumps(entries)}
    if image is not None:
        fields["image"] = ("blob", image, "application/octet-stream")
    if text is not None:
        fields["text"] = text
    encoder = MultipartEncoder(fields)
    return encoder.content_type, encoder.to_string()


def predict(
    url: str,
    entries: Mapping[str, Any],
    *,
    image: bytes | None = None,
    text: str | None = None,
    timeout: float = 300.0,
) -> Answer:
    """POST to *url*/predict. Raises ``requests.RequestException`` when nobody answers within *timeout* seconds."""
    content_type, body = encode(entries, image=image, text=text)
    started = time.perf_counter()
    response = direct_requests.post(
        f"{url.rstrip('/')}/predict", data=body, headers={"Content-Type": content_type}, timeout=timeout
    )
    seconds = time.perf_counter() - started
    try:
        parsed = response.json()
    except ValueError:
        parsed = response.text
    return Answer(response.status_code, parsed, seconds, response.headers)
