"""Bodies of forms for property tests: bytes, pieces of multipart syntax, whole parts, and the types they come with."""

from __future__ import annotations

import json

from attacks import BOUNDARY
from hypothesis import strategies as st

from immich_triton.immich.ml_client import entries_for


def multipart(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    """Return a multipart body of *parts*, headers and content; *end* is what follows the last boundary."""
    return b"".join(b"--%s\r\n%s\r\n" % (BOUNDARY, part) for part in parts) + b"--" + BOUNDARY + end


def part(name: str, value: bytes) -> bytes:
    """Return a field as a browser sends it, or a file in ``image``."""
    filename = '; filename="blob"' if name == "image" else ""
    return b'Content-Disposition: form-data; name="%s"%s\r\n\r\n%s' % (name.encode(), filename.encode(), value)


# Pieces a multipart body is made of, so that the generator gets past the first line of a parser.
pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"\r\n",
            b"\n",
            b"\r",
            b"--",
            b"--" + BOUNDARY,
            b"\r\n--" + BOUNDARY,
            b"\r\n--" + BOUNDARY + b"--",
            b"--" + BOUNDARY + b"\r\n",
            b'Content-Disposition: form-data; name="entries"',
            b'Content-Disposition: form-data; name="image"; filename="blob"',
            b'Content-Disposition: form-data; name="text"',
            b"Content-Disposition: form-data",
            b"Content-Disposition: form-data; name*=utf-8''entries",
            b'Content-Disposition: form-data; name="a\\"b"; filename=""',
            b"Content-Type: application/octet-stream",
            b"Content-Transfer-Encoding: base64",
            b"\r\n\r\n",
            b":",
            b"\0",
            b'{"ocr":{}}',
            json.dumps(entries_for("ocr")).encode(),
        ]
    ),
)
# Whole parts, so that many a body is a form.
named = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="entries"',
        b'content-disposition:form-data;name="image";filename="blob"',
        b"CONTENT-DISPOSITION: form-data; name=text; filename",
        b'Content-Disposition: form-data; name="caf\xc3\xa9"',
        b'Content-Disposition: form-data; name="\xff"',
        b"Content-Disposition: form-data; name*=utf-8''entries; name=other",
        b'Content-Disposition: form-data; name="a\\"b;c"; filename="C:\\x\\y"',
    ]
)
unnamed = st.one_of(
    st.sampled_from(
        [
            b'Content-Disposition: form-data; filename="blob"',
            b"Content-Type: text/plain; charset=latin-1",
            b"X-Other: 1",
        ]
    ),
    st.binary(max_size=12),
)
contents = st.one_of(
    st.binary(max_size=60), st.sampled_from([b"{}", "猫".encode(), b"\r\n--" + BOUNDARY[:-1], b"\r\n"])
)
good_parts = st.builds(lambda header, content: b"%s\r\n\r\n%s" % (header, content), named, contents)
odd_parts = st.builds(
    lambda headers, content: b"\r\n".join([*headers, b"", content]),
    st.lists(st.one_of(named, unnamed), max_size=3),
    contents,
)
multiparts = st.builds(
    lambda some, end: multipart(*some, end=end),
    st.one_of(st.lists(good_parts, max_size=5), st.lists(st.one_of(good_parts, odd_parts), max_size=5)),
    st.sampled_from([b"--\r\n", b"--", b"--\r\nepilogue", b"", b"-", b"\r\n"]),
)
urlencoded = st.lists(
    st.one_of(
        st.sampled_from([b"entries=", b"text=", b"&", b"=", b";", b"+", b"%", b"%20", b"%e7%8c%ab", b"%ff", b"\0"]),
        st.binary(max_size=6),
    ),
    max_size=24,
).map(b"".join)
bodies = st.one_of(st.lists(pieces, max_size=24).map(b"".join), multiparts, urlencoded)
MULTIPART = f"multipart/form-data; boundary={BOUNDARY.decode()}"
URLENCODED = "application/x-www-form-urlencoded"
content_types = st.one_of(
    st.just(MULTIPART),
    st.sampled_from(
        [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            'multipart/form-data; boundary="' + BOUNDARY.decode() + '"',
            URLENCODED,
            "Application/X-WWW-Form-URLencoded ; charset=utf-8",
            "multipart/form-data; x=y; BOUNDARY=" + BOUNDARY.decode(),
            "application/json",
            "",
        ]
    ),
    # What mitmproxy makes of a header's bytes.
    st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)
