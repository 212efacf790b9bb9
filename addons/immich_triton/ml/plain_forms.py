"""Multipart forms so plain that every parser reads them alike: those alone may go on byte for byte.

Two parsers that read one body in two ways are a way past the gateway: one of them sees a model's name, the other does
not. Charsets, RFC 2231 names, quoting, header folding, preambles, lone line feeds, a boundary that occurs in a value:
whatever parsers are known to disagree about is not plain. What Immich, browsers and the common libraries send is.
"""

from __future__ import annotations

import re
from typing import Final

from immich_triton.ml.forms import MAX_FIELD_BYTES, MAX_PARTS, Part

_LONGEST_HEAD: Final = 1024
"""Bytes that the headers of a part may have."""

_FORM: Final = re.compile(r"multipart/form-data; ?boundary=([0-9A-Za-z_.+-]{1,70})")
# Nothing between the quotes that could end them, begin another parameter, escape or encode something.
_QUOTED: Final = rb'"([^\x00-\x1f\x7f"\\;=<>*%]*)"'
_DISPOSITION: Final = re.compile(
    rb"(?i:content-disposition): ?form-data; ?name=%b(?:; ?filename=%b)?" % (_QUOTED, _QUOTED)
)
# A part of parts, or a whole message, is another thing to whoever looks into it.
_TOKEN: Final = rb"[0-9A-Za-z!#$&^_.+-]+"
_TYPE: Final = re.compile(
    rb"(?i:content-type): ?((?!(?i:multipart|message)/)%b/%b(?:; ?charset=(?i:utf-8))?)" % (_TOKEN, _TOKEN)
)


def read_plain(content_type: str, body: bytes, *, max_parts: int = MAX_PARTS) -> list[Part] | None:
    """Return the parts of a plain form, or None for every other body, be it a form or not.

    A field is UTF-8 of at most `MAX_FIELD_BYTES`, and there are at most *max_parts* fields and as many files.
    """
    form = _FORM.fullmatch(content_type)
    if form is None:
        return None
    dashes = b"--" + form[1].encode()
    count = body.count(dashes)
    # Counted first, so that nothing is taken apart in vain; and so no value holds the boundary in any disguise.
    if not 1 < count <= 2 * max_parts + 1 or not body.startswith(dashes):
        return None
    delimiter = b"\r\n" + dashes
    parts = []
    begin = len(dashes)
    for _ in range(count - 1):
        end = body.find(delimiter, begin)
        part = _read_part(body, begin, end) if end >= 0 else None
        if part is None:
            return None
        parts.append(part)
        begin = end + len(delimiter)
    files = sum(part.filename is not None for part in parts)
    if body[begin : begin + 5] not in (b"--", b"--\r\n") or max(files, len(parts) - files) > max_parts:
        return None
    return parts


def _read_part(body: bytes, begin: int, end: int) -> Part | None:
    """Read what lies between two boundaries: CRLF, headers, CRLF CRLF, value."""
    head_end = body.find(b"\r\n\r\n", begin, min(end, begin + _LONGEST_HEAD))
    if head_end < 0:
        return None
    before, *headers = body[begin:head_end].split(b"\r\n")
    if before or not 1 <= len(headers) <= 2:
        return None
    disposition, content_type = _match(headers, _DISPOSITION), _match(headers, _TYPE)
    if disposition is None or (content_type is None) != (len(headers) == 1):
        return None
    value = body[head_end + 4 : end]
    is_file = disposition[2] is not None
    try:
        name, filename = disposition[1].decode(), disposition[2].decode() if is_file else None
        if not is_file:
            value.decode()
    except UnicodeDecodeError:
        return None
    if not is_file and len(value) > MAX_FIELD_BYTES:
        return None
    return Part(name, value, filename, content_type[1].decode() if content_type and is_file else None)


def _match(headers: list[bytes], pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
    """Return the match of the first header that is wholly of that form."""
    return next(filter(None, map(pattern.fullmatch, headers)), None)
