"""HTML forms as stock's parser reads them: multipart and urlencoded, leniently, within stock's limits.

What only one parser reads in this way is read here as well; whether it may go on as it came is another question
(`plain_forms`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELD_BYTES: Final = 1024 * 1024
MAX_PARTS: Final = 1000
"""Stock's limits on one text field, and on the number of fields and of files."""


class FormError(ValueError):
    """The body is no form that stock would read either; the text is stock's own ``detail``."""


@dataclass(frozen=True)
class Part:
    """A field of a form; a file where there is a ``filename``, even an empty one."""

    name: str
    value: bytes
    filename: str | None = None
    content_type: str | None = None


def read_parts(content_type: str, body: bytes, *, max_parts: int = MAX_PARTS) -> list[Part]:
    """Read all parts out of a request body, in order. Raises `FormError` where stock refuses it.

    *max_parts* bounds the number of fields and that of files. A body of another kind than a form has none.
    """
    # Back to the header's bytes, of which mitmproxy made a text: the parser reads them as Latin-1.
    kind, parameters = parse_options_header(content_type.encode("utf-8", "surrogateescape"))
    if kind == b"multipart/form-data":
        return _read_multipart(parameters.get(b"boundary"), body, max_parts)
    if kind == b"application/x-www-form-urlencoded":
        return _read_urlencoded(body, max_parts)
    return []


def decode(value: bytes) -> str:
    """Return the text of a field or of a name: UTF-8, else Latin-1, as stock does without a charset."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _read_urlencoded(body: bytes, max_parts: int) -> list[Part]:
    # Before anything is taken apart: fifty million empty fields would take minutes and gigabytes.
    _bound("fields", body.count(b"&") + 1, max_parts)
    parts = []
    for pair in body.split(b"&"):
        if len(pair) > MAX_FIELD_BYTES:
            raise FormError(f"Field exceeded maximum size of {MAX_FIELD_BYTES // 1024}KB.")
        if pair:
            name, _, value = pair.decode("latin-1").partition("=")
            parts.append(Part(unquote_plus(name), unquote_plus(value).encode("utf-8")))
    return parts


def _read_multipart(boundary: bytes | None, body: bytes, max_parts: int) -> list[Part]:
    if not boundary:
        raise FormError("Missing boundary in multipart.")
    collector = _Collector(max_parts)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise FormError("There was an error parsing the body") from error
    if not collector.ended:
        # Without its closing boundary the last part may be half an image: stock would take it for a whole one.
        raise FormError("There was an error parsing the body")
    return collector.parts


class _Collector:
    """Collects the parts of a multipart body from the parser's callbacks."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._max_parts = max_parts
        self._files = 0
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._filename: str | None = None
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
        self._headers, self._name, self._filename, self._data, self._size = {}, "", None, [], 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        # The last one of a name counts.
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise FormError('The Content-Disposition header field "name" must be provided.')
        self._name = decode(options[b"name"])
        self._filename = decode(options[b"filename"]) if b"filename" in options else None
        self._files += self._filename is not None
        _bound("files", self._files, self._max_parts)
        _bound("fields", len(self.parts) + 1 - self._files, self._max_parts)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._filename is None and self._size > MAX_FIELD_BYTES:
            raise FormError(f"Part exceeded maximum size of {MAX_FIELD_BYTES // 1024}KB.")
        self._data.append(data[start:end])

    def _part_end(self) -> None:
        content_type = self._headers.get(b"content-type")
        self.parts.append(
            Part(
                self._name,
                b"".join(self._data),
                self._filename,
                decode(content_type) if content_type and self._filename is not None else None,
            )
        )

    def _end(self) -> None:
        self.ended = True


def _bound(what: str, count: int, most: int) -> None:
    if count > most:
        raise FormError(f"Too many {what}. Maximum number of {what} is {most}.")
