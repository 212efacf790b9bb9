"""Immich's ``POST /predict``: parse, validate, serialise. Pure: no I/O, no mitmproxy.

Every refusal has the status and the body of stock Immich ML (FastAPI with python-multipart), so that an Immich server
cannot tell who answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus, unquote_to_bytes

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from requests_toolbelt import MultipartEncoder

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELD_BYTES: Final = 1024 * 1024
MAX_PARTS: Final = 1000
"""Stock's limits on one text field, and on the number of fields and of files."""

KNOWN_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "clip": ("visual", "textual"),
    "facial-recognition": ("detection", "recognition"),
    "ocr": ("detection", "recognition"),
}
"""Immich's tasks and their types. An entry of any other task is passed on as it is, whatever its shape."""


class ProtocolError(Exception):
    """The request cannot be processed; carries the answer: an HTTP status and the JSON ``detail``."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class Form:
    """The fields of the form that matter; ``None`` where the request has none."""

    entries: str | None
    image: bytes | None
    text: str | None


@dataclass(frozen=True)
class Entry:
    """One model request: ``{type: {"modelName": …, "options": …}}`` of a task."""

    task: str
    type: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def number(self, option: str, default: float) -> float:
        """Return a finite numeric option. Raises `ProtocolError` (422) when it is something else."""
        value = self.options.get(option, default)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProtocolError(422, f"Option {option} of {self.task}/{self.type} must be a number, got {value!r}.")
        return value


def fold_path(target: str) -> str:
    """Return the path of a request target as a server may understand it, so that no spelling slips past.

    Query and fragment are cut off, percent-encoding is decoded once (as ASGI servers do), ``//``, ``.``, ``..`` and a
    trailing ``/`` are folded: ``/%70redict``, ``//predict/`` and ``/x/../predict`` are all ``/predict``.
    """
    path = target.partition("?")[0].partition("#")[0].encode("utf-8", "surrogateescape")
    segments: list[str] = []
    for segment in unquote_to_bytes(path).decode("latin-1").split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


def clean_name(name: str) -> str:
    """Return a model name in its clean form, as stock does: ``ViT-B-16::openai`` is ``ViT-B-16__openai``."""
    return name.rsplit("/", 1)[-1].replace(":", "_")


def parse_form(content_type: str, body: bytes, *, max_parts: int = MAX_PARTS) -> Form:
    """Read what matters out of a request body. Raises `ProtocolError` as stock refuses it.

    A repeated field counts with its last value, unknown fields are ignored, an empty text counts as none.
    """
    last = dict(parse_fields(content_type, body, max_parts=max_parts))
    entries, image, text = last.get("entries"), last.get("image"), last.get("text")
    return Form(
        entries=_decode(entries) if entries else None,
        image=image,
        text=_decode(text) if text else None,
    )


def parse_fields(content_type: str, body: bytes, *, max_parts: int = MAX_PARTS) -> list[tuple[str, bytes]]:
    """Read all fields out of a request body, in order. Raises `ProtocolError` as stock refuses it.

    *max_parts* bounds the number of fields and that of files. A body of another kind than a form has none.
    """
    # Back to the header's bytes, of which mitmproxy made a text: the parser reads them as Latin-1.
    kind, parameters = parse_options_header(content_type.encode("utf-8", "surrogateescape"))
    if kind == b"multipart/form-data":
        return _parse_multipart(parameters.get(b"boundary"), body, max_parts)
    if kind == b"application/x-www-form-urlencoded":
        return _parse_urlencoded(body, max_parts)
    return []


def _parse_urlencoded(body: bytes, max_parts: int) -> list[tuple[str, bytes]]:
    # Before anything is taken apart: fifty million empty fields would take minutes and gigabytes.
    _bound("fields", body.count(b"&") + 1, max_parts)
    fields = []
    for pair in body.split(b"&"):
        if len(pair) > MAX_FIELD_BYTES:
            raise ProtocolError(400, f"Field exceeded maximum size of {MAX_FIELD_BYTES // 1024}KB.")
        name, _, value = pair.decode("latin-1").partition("=")
        fields.append((unquote_plus(name), unquote_plus(value).encode("utf-8")))
    return fields


def _parse_multipart(boundary: bytes | None, body: bytes, max_parts: int) -> list[tuple[str, bytes]]:
    if not boundary:
        raise ProtocolError(400, "Missing boundary in multipart.")
    parts = _Parts(max_parts)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ProtocolError(400, "There was an error parsing the body") from error
    if not parts.ended:
        # Without its closing boundary the last part may be half an image: stock would take it for a whole one.
        raise ProtocolError(400, "There was an error parsing the body")
    return parts.fields


class _Parts:
    """Collects the parts of a multipart body from the parser's callbacks."""

    def __init__(self, max_parts: int) -> None:
        self.fields: list[tuple[str, bytes]] = []
        self._max_parts = max_parts
        self.ended = False
        self._files = 0
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._name = ""
        self._is_file = False
        self._data: list[bytes] = []
        self._size = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._disposition, self._name, self._is_file, self._data, self._size = b"", "", False, [], 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise ProtocolError(400, 'The Content-Disposition header field "name" must be provided.')
        self._name = _decode(options[b"name"])
        self._is_file = b"filename" in options
        self._files += self._is_file
        _bound("files", self._files, self._max_parts)
        _bound("fields", len(self.fields) + 1 - self._files, self._max_parts)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if not self._is_file and self._size > MAX_FIELD_BYTES:
            raise ProtocolError(400, f"Part exceeded maximum size of {MAX_FIELD_BYTES // 1024}KB.")
        self._data.append(data[start:end])

    def _part_end(self) -> None:
        self.fields.append((self._name, b"".join(self._data)))

    def _end(self) -> None:
        self.ended = True


def _bound(what: str, count: int, most: int) -> None:
    if count > most:
        raise ProtocolError(400, f"Too many {what}. Maximum number of {what} is {most}.")


def _decode(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


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
        entries.append(Entry(task, type_, clean_name(name), options))
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


def build_form(entries: Mapping[str, Any], form: Form) -> tuple[str, bytes]:
    """Return content type and body of a request with other *entries* and the same, byte-identical image or text."""
    fields: dict[str, Any] = {"entries": orjson.dumps(entries).decode()}
    if form.image is not None:
        fields["image"] = ("blob", form.image, "application/octet-stream")
    if form.text is not None:
        fields["text"] = form.text.encode("utf-8", "surrogatepass")
    encoder = MultipartEncoder(fields)
    return encoder.content_type, encoder.to_string()


def dump(answer: object) -> bytes:
    """Serialise an answer as stock does: compact JSON; NumPy float32 values with their shortest digits."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def merge(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the answers of a split request into one object."""
    merged: dict[str, Any] = {}
    for answer in answers:
        merged.update(answer)
    return merged
