"""Immich's ``POST /predict``: parse, validate, serialise. Pure: no I/O, no mitmproxy.

Every refusal has the status and the body of stock Immich ML (FastAPI with python-multipart), so that an Immich server
cannot tell who answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
from requests_toolbelt import MultipartEncoder

from immich_triton.core.errors import ProtocolError
from immich_triton.immich.model_names import clean_name
from immich_triton.immich.task_types import KNOWN_TYPES
from immich_triton.ml.forms import MAX_PARTS, FormError, Part, decode, read_parts
from immich_triton.ml.plain_forms import read_plain


@dataclass(frozen=True)
class Form:
    """The fields of the form that matter; ``None`` where the request has none. ``others`` are those that stock ignores.

    ``exact`` tells that every parser reads the body in this way, so that it may go on byte for byte.
    """

    entries: str | None
    image: bytes | None
    text: str | None
    others: tuple[Part, ...] = ()
    exact: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Entry:
    """One model request: ``{type: {"modelName": …, "options": …}}`` of a task.

    ``name`` is the model's in its clean form, the one to compare; ``spelling`` is what was asked for, for people.
    """

    task: str
    type: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    spelling: str = ""

    def number(self, option: str, default: float) -> float:
        """Return a finite numeric option. Raises `ProtocolError` (422) when it is something else."""
        value = self.options.get(option, default)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProtocolError(422, f"Option {option} of {self.task}/{self.type} must be a number, got {value!r}.")
        return value


def parse_form(content_type: str, body: bytes, *, max_parts: int = MAX_PARTS) -> Form:
    """Read what matters out of a request body. Raises `ProtocolError` as stock refuses it.

    A repeated field counts with its last value, an empty text counts as none.
    """
    plain = read_plain(content_type, body, max_parts=max_parts)
    try:
        parts = read_parts(content_type, body, max_parts=max_parts) if plain is None else plain
    except FormError as error:
        raise ProtocolError(400, str(error)) from error
    last = {part.name: part for part in parts}
    entries, image, text = last.get("entries"), last.get("image"), last.get("text")
    return Form(
        entries=decode(entries.value) if entries and entries.value else None,
        image=image.value if image else None,
        text=decode(text.value) if text and text.value else None,
        others=tuple(part for part in parts if part.name not in _FIELDS),
        exact=plain is not None and len(last) == len(plain) and all(map(_is_as_declared, plain)),
    )


_FIELDS: Final = ("entries", "image", "text")


def _is_as_declared(part: Part) -> bool:
    """Whether a part that stock knows is a file or a field as stock declares it."""
    return part.name not in _FIELDS or (part.filename is not None) == (part.name == "image")


def parse_entries(raw: str | None) -> dict[str, Any]:
    """Parse the ``entries`` field into ``{task: …}``; raises `ProtocolError` (422) when there is no JSON object.

    The tasks in it are not looked at: those of forks and of later versions are none of our business.
    """
    if raw is None:
        missing = {"type": "missing", "loc": ["body", "entries"], "msg": "Field required", "input": None}
        raise ProtocolError(422, [missing])
    try:
        entries = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(422, "Invalid request format.") from error
    if not isinstance(entries, dict):
        raise ProtocolError(422, "Invalid request format.")
    return entries


def parse_task(task: str, types: object) -> list[Entry]:
    """Validate what was asked of one of Immich's tasks. Raises `ProtocolError` as stock refuses it."""
    if not isinstance(types, dict):
        raise ProtocolError(422, "Invalid request format.")
    entries = []
    for type_, model in types.items():
        name = model.get("modelName") if isinstance(model, dict) else None
        options = (model.get("options") if isinstance(model, dict) else None) or {}
        if type_ not in KNOWN_TYPES[task] or not isinstance(name, str) or not isinstance(options, dict):
            raise ProtocolError(422, "Invalid request format.")
        entries.append(Entry(task, type_, clean_name(name), options, name))
    if {entry.type for entry in entries} == {"recognition"}:
        # Stock's own words; it prints the pair of enums that it looked up.
        dependency = f"(<ModelType.DETECTION: 'detection'>, <ModelTask.{_ENUM[task]}: '{task}'>)"
        raise ProtocolError(400, f"Task {task} of type recognition depends on output of {dependency}")
    return entries


_ENUM: Final = {"facial-recognition": "FACIAL_RECOGNITION", "ocr": "OCR"}


def require_payload(form: Form) -> None:
    """Raise `ProtocolError` (400) when there is neither an image nor a text. An empty image counts as one."""
    if form.image is None and form.text is None:
        raise ProtocolError(400, "Either image or text must be provided")


def is_exact(form: Form) -> bool:
    """Whether stock sees in the body of *form*, byte for byte, what we saw: no key of ``entries`` is there twice."""
    return form.exact and not _has_repeated_keys(form.entries or "")


_LONGEST_LOOKED_THROUGH: Final = 64 * 1024
"""Characters; Immich's own entries have some two hundred."""


def _has_repeated_keys(text: str) -> bool:
    """Look for an object with two equal keys in valid JSON; what is too long or too deep to look through has some."""
    if len(text) > _LONGEST_LOOKED_THROUGH:
        return True
    found = False

    def look(pairs: list[tuple[str, object]]) -> None:
        nonlocal found
        found = found or len({key for key, _ in pairs}) < len(pairs)

    try:
        json.loads(text, object_pairs_hook=look)
    except (ValueError, RecursionError):
        return True
    return found


def build_form(entries: Mapping[str, Any], form: Form) -> tuple[str, bytes]:
    """Return content type and body of a request with other *entries*: a plain form, which every parser reads alike.

    Image, text and what stock ignores stay as they were understood, the image byte for byte. Raises `ProtocolError`
    (400) where there is no such form.
    """
    parts = [replace(one, value=decode(one.value).encode()) if one.filename is None else one for one in form.others]
    if form.text is not None:
        parts.insert(0, Part("text", form.text.encode("utf-8", "surrogatepass")))
    if form.image is not None:
        parts.insert(0, Part("image", form.image, "blob", "application/octet-stream"))
    try:
        parts.insert(0, Part("entries", orjson.dumps(entries)))
    except orjson.JSONEncodeError as error:
        raise ProtocolError(400, f"The entries cannot be passed on: {error}") from error
    encoder = MultipartEncoder([(part.name, (part.filename, part.value, part.content_type)) for part in parts])
    content_type, body = encoder.content_type, encoder.to_string()
    if read_plain(content_type, body, max_parts=len(parts)) != parts:
        raise ProtocolError(
            400,
            "This form cannot be passed on to the stock ML in a way that every parser reads alike. "
            "Send names of fields and files without quotes and special characters, and texts in UTF-8.",
        )
    return content_type, body


def merge(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the answers of a split request into one object."""
    merged: dict[str, Any] = {}
    for answer in answers:
        merged.update(answer)
    return merged
