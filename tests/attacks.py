"""Requests that a stock Immich ML would run as a routed model, and that name another one or none to other parsers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stand_in_triton import CLIP_NAME

UNROUTED: Final = "ViT-B-32__openai"
BOUNDARY: Final = b"----formdata-undici-012345678901"
MULTIPART: Final = b"multipart/form-data; boundary=" + BOUNDARY
URLENCODED: Final = b"application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Attack:
    """A POST: its target, the headers that matter to a parser, the body."""

    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def entries(name: str, task: str = "clip", type_: str = "textual") -> bytes:
    """Return the field ``entries`` that asks for one model."""
    return json.dumps({task: {type_: {"modelName": name}}}).encode()


def body(parts: Sequence[tuple[bytes, bytes]], *, line: bytes = b"\r\n", boundary: bytes = BOUNDARY) -> bytes:
    """Return a multipart body of *parts*: all headers of one, and its value."""
    pieces = [b"--" + boundary + line + head + line + line + value + line for head, value in parts]
    return b"".join(pieces) + b"--" + boundary + b"--" + line


def field(name: bytes) -> bytes:
    """Return the header of a plain field."""
    return b'Content-Disposition: form-data; name="%b"' % name


def post(
    content: bytes, *, target: bytes = b"/predict", types: Sequence[bytes] = (MULTIPART,), extra: Sequence[bytes] = ()
) -> Attack:
    """Return a request with these Content-Type headers, and *extra* ones given as lines."""
    others = [tuple(line.split(b": ", 1)) for line in extra]
    return Attack(target, (*((b"Content-Type", one) for one in types), *others), content)  # type: ignore[arg-type]


def form(asked: bytes, *before: tuple[bytes, bytes]) -> bytes:
    """Return a form with a text, asking for *asked*."""
    return body([*before, (field(b"entries"), asked), (field(b"text"), b"hi")])


def disguised(disposition: bytes) -> Attack:
    """Return a form whose last ``entries`` stands under an odd disposition, after a plain one for another model."""
    return post(
        body(
            [
                (field(b"entries"), entries(UNROUTED)),
                (field(b"text"), b"hi"),
                (b"Content-Disposition: form-data; " + disposition, entries(CLIP_NAME)),
            ]
        )
    )


def in_charset(charset: str, unrouted: bytes) -> Attack:
    """Return a form in *charset* that names the routed model there, and *unrouted* to whoever takes it for UTF-8."""
    return post(form(unrouted), types=[MULTIPART + b"; charset=" + charset.encode()])


def in_ebcdic() -> Attack:
    """Return a form whose last ``entries`` are EBCDIC, and whose first ones are plain to everybody else."""
    asked, name, text = (value.encode("cp037") for value in (entries(CLIP_NAME).decode(), "entries", "text"))
    parts = [(field(b"entries"), entries(UNROUTED)), (field(b"text"), b"hi"), (field(name), asked), (field(text), text)]
    return post(body(parts), types=[MULTIPART + b"; charset=cp037"])


ROUTED: Final = entries(CLIP_NAME)
UTF_7: Final = entries("ViT-B+AC0-16__openai")
SEMICOLON: Final = b"entries=%b&text=hi;entries=%b" % (entries(UNROUTED), ROUTED)
ODD_NAMES: Final = (
    "ViT-B-16__openai.",
    "ViT-B-16.__openai",
    "ViT-B-16\\_openai",
    "x/y/.ViT-B-16::openai",
    "ViT-B-16:\\openai",
)

ATTACKS: Final[dict[str, Attack]] = {
    "a line feed after the path": post(form(ROUTED), target=b"/predict%0a"),
    "a line feed in capitals, with a query": post(form(ROUTED), target=b"/predict%0A?x=1"),
    **{f"the name {name}": post(form(entries(name))) for name in ODD_NAMES},
    "the charset UTF-7": in_charset("utf-7", UTF_7),
    "the charset UTF-7, quoted": post(form(UTF_7), types=[MULTIPART + b'; Charset="UTF-7"']),
    "the charset UTF-7, RFC 2231": post(form(UTF_7), types=[MULTIPART + b"; charset*=us-ascii''utf-7"]),
    "the charset UTF-7, folded": post(form(UTF_7), types=[MULTIPART + b";\r\n charset=utf-7"]),
    "the charset EBCDIC": in_ebcdic(),
    "a semicolon in a urlencoded form": post(SEMICOLON, types=[URLENCODED]),
    "a semicolon, and a charset": post(SEMICOLON, types=[URLENCODED + b"; charset=utf-8"]),
    "an RFC 2231 name after a plain one": disguised(b"name=\"x\"; name*=utf-8''entries"),
    "an RFC 2231 name before a plain one": disguised(b"name*=utf-8''entries; name=\"x\""),
    "a percent-encoded name": disguised(b"name*=utf-8''%65ntries"),
    "a name in two pieces": disguised(b"name*0=ent; name*1=ries"),
    "a name in two quoted pieces": disguised(b'name*0="ent"; name*1="ries"'),
    "a name in angle brackets": disguised(b"name=<entries>"),
    "a parameter in capitals": disguised(b'NAME="entries"'),
    "a second name": disguised(b'name="x"; name="entries"'),
    "a second disposition": disguised(b'name="x"\r\nContent-Disposition: form-data; name="entries"'),
    "two content types": post(form(ROUTED), types=[MULTIPART, b"multipart/form-data; boundary=other"]),
    "a second content type that is no form": post(form(ROUTED), types=[MULTIPART, b"text/plain"]),
    "content said to be compressed": post(form(ROUTED), extra=[b"Content-Encoding: gzip"]),
    "a key twice": post(form(b'{"clip":{"textual":{"modelName":"x"}},%b' % ROUTED[1:])),
    "an escaped key": post(form(ROUTED.replace(b"clip", b"cl\\u0069p"))),
    "the path in an absolute target": post(form(ROUTED), target=b"http://elsewhere/predict"),
}
"""By what they do; stock alone would run the routed name in each of them."""
