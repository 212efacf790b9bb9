"""Which forms go on byte for byte: those that Immich and the common libraries send, and nothing odd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attacks import BOUNDARY, body, entries, field, form
from generated_forms import MULTIPART as TYPE
from generated_forms import content_types, multiparts
from hypothesis import given
from hypothesis import strategies as st
from places import DATA

from immich_triton.core.errors import ProtocolError
from immich_triton.ml.forms import MAX_FIELD_BYTES, FormError, read_parts
from immich_triton.ml.plain_forms import read_plain
from immich_triton.ml.protocol import parse_form

WIRE = DATA / "wire"
ASKED = (field(b"entries"), entries("m"))
IMAGE = (field(b"image") + b'; filename="blob"\r\nContent-Type: application/octet-stream', b"\xff\xd8")


@pytest.mark.parametrize("path", sorted(WIRE.glob("*.body")), ids=lambda path: path.stem)
def test_what_immich_sends_is_plain(path: Path) -> None:
    headers = json.loads(path.with_suffix(".headers.json").read_text())["headers"]
    assert parse_form(headers["content-type"], path.read_bytes()).exact


@pytest.mark.parametrize(
    "content",
    [
        body([ASKED, IMAGE]),
        body([IMAGE, ASKED, (field(b"text"), "猫\r\n".encode())]),
        body([ASKED, (field("某".encode()), b""), (field(b"x") + b'; filename="a b (1).jpg"', b"\0\xff\r\n--\r\n")]),
        body([(b'content-disposition:form-data;name="entries"\r\nContent-Type:text/plain;charset=UTF-8', b"{}")]),
        body([(b'Content-Type: application/json\r\nContent-Disposition: form-data; name="entries"', b"{}")]),
        body([ASKED]).removesuffix(b"\r\n"),
        form(b"{}", (field(b"a"), b"x" * MAX_FIELD_BYTES)),
    ],
    ids=range(7),
)
def test_these_are_plain(content: bytes) -> None:
    assert parse_form(TYPE, content).exact
    assert read_plain(TYPE, content) == read_parts(TYPE, content)


def one(disposition: bytes, value: bytes = b"{}") -> bytes:
    return body([(b"Content-Disposition: form-data; " + disposition, value)])


PLAIN = body([ASKED])
NOT_PLAIN = {
    "a charset": (TYPE + "; charset=utf-8", PLAIN),
    "a quoted boundary": (TYPE.replace("=", '="') + '"', PLAIN),
    "capitals in the type": (TYPE.replace("m", "M", 1), PLAIN),
    "a folded type": (TYPE.replace("; ", ";\r\n "), PLAIN),
    "no boundary": ("multipart/form-data", PLAIN),
    "a urlencoded form": ("application/x-www-form-urlencoded", b"entries=%7B%7D"),
    "a preamble": (TYPE, b"\r\n" + PLAIN),
    "an epilogue": (TYPE, PLAIN + b"x"),
    "no end": (TYPE, PLAIN.removesuffix(b"--\r\n")),
    "lone line feeds": (TYPE, body([ASKED], line=b"\n")),
    "white space after the boundary": (TYPE, PLAIN.replace(BOUNDARY + b"\r\n", BOUNDARY + b" \r\n", 1)),
    "the boundary in a value": (TYPE, body([ASKED, (field(b"x"), b"a\n--" + BOUNDARY + b"\nb")])),
    "no name": (TYPE, one(b'filename="x"')),
    "no value of a header": (TYPE, body([(b"Content-Disposition:", b"")])),
    "an unquoted name": (TYPE, one(b"name=entries")),
    "a name in brackets": (TYPE, one(b'name="<entries>"')),
    "an RFC 2231 name": (TYPE, one(b"name*=utf-8''entries")),
    "a name in pieces": (TYPE, one(b"name*0=ent; name*1=ries")),
    "an escape in a name": (TYPE, one(b'name="entr\\ies"')),
    "a percent sign in a name": (TYPE, one(b'name="%65ntries"')),
    "a semicolon in a name": (TYPE, one(b'name="x;y"')),
    "a NUL in a name": (TYPE, one(b'name="x\0"')),
    "a tab in a name": (TYPE, one(b'name="\tentries"')),
    "a name that is not UTF-8": (TYPE, one(b'name="\xff"')),
    "a file name first": (TYPE, one(b'filename="x"; name="image"')),
    "an RFC 2231 file name": (TYPE, one(b"name=\"image\"; filename*=utf-8''x")),
    "another parameter": (TYPE, one(b'name="entries"; x=y')),
    "capitals in a parameter": (TYPE, one(b'NAME="entries"')),
    "an attachment": (TYPE, body([(b'Content-Disposition: attachment; name="x"', b"")])),
    "two dispositions": (TYPE, one(b'name="x"\r\nContent-Disposition: form-data; name="entries"')),
    "two types of a part": (TYPE, one(b'name="entries"\r\nContent-Type: a/b\r\nContent-Type: a/b')),
    "a transfer encoding": (TYPE, one(b'name="entries"\r\nContent-Transfer-Encoding: base64')),
    "a charset of a part": (TYPE, one(b'name="entries"\r\nContent-Type: text/plain; charset=utf-16')),
    "a part of parts": (TYPE, one(b'name="entries"\r\nContent-Type: Multipart/mixed')),
    "a folded header": (TYPE, one(b'name="entries";\r\n filename="x"')),
    "a long header": (TYPE, one(b'name="' + b"x" * 1024 + b'"')),
    "a text that is not UTF-8": (TYPE, body([ASKED, (field(b"text"), b"\xff")])),
    "a name twice": (TYPE, body([ASKED, ASKED])),
    "an unknown name twice": (TYPE, body([ASKED, (field(b"x"), b""), (field(b"x"), b"")])),
    "entries in a file": (TYPE, one(b'name="entries"; filename="x"')),
    "an image in a field": (TYPE, body([ASKED, (field(b"image"), b"x")])),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_these_are_not(name: str) -> None:
    content_type, content = NOT_PLAIN[name]
    try:
        exact = parse_form(content_type, content).exact
    except ProtocolError:
        exact = False
    assert not exact


def test_stocks_limits_are_kept() -> None:
    for content in (form(b"{}", (field(b"a"), b"x" * (MAX_FIELD_BYTES + 1))), body([ASKED, *([IMAGE] * 3)])):
        assert read_plain(TYPE, content, max_parts=2) is None
        with pytest.raises(FormError):
            read_parts(TYPE, content, max_parts=2)


@given(content_type=st.one_of(st.just(TYPE), content_types), content=multiparts)
def test_what_is_plain_is_read_alike_by_the_parser(content_type: str, content: bytes) -> None:
    plain = read_plain(content_type, content)
    assert plain is None or plain == read_parts(content_type, content)
