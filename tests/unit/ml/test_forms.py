"""Forms as stock's parser reads them; compared with stock in test_stock_oracle.py, fuzzed in test_fuzz.py."""

from __future__ import annotations

import pytest
from attacks import BOUNDARY, body, field
from generated_forms import MULTIPART, URLENCODED

from immich_triton.ml import forms
from immich_triton.ml.forms import MAX_FIELD_BYTES, FormError, Part, decode, read_parts

FILE = field(b"image") + b'; filename="blob"'


def test_fields_and_files_in_their_order() -> None:
    content = body([(FILE + b"\r\nContent-Type: image/jpeg", b"\xff\r\n\xd8"), (field(b"text"), "猫".encode())])
    assert read_parts(MULTIPART, content) == [
        Part("image", b"\xff\r\n\xd8", "blob", "image/jpeg"),
        Part("text", "猫".encode()),
    ]


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b'content-disposition: form-data; name="x"; filename=""', Part("x", b"v", "", None)),
        (b'Content-Disposition: form-data; name="x"\r\nContent-Type: text/plain', Part("x", b"v")),
        (b'Content-Disposition: form-data; name="\xe7\x8c\xab"', Part("猫", b"v")),
        (b'Content-Disposition: form-data; name="\xff"', Part("ÿ", b"v")),
        (b'Content-Disposition: a; name="a"\r\nContent-Disposition: form-data; name="b"', Part("b", b"v")),
    ],
)
def test_odd_headers_are_read_leniently(head: bytes, part: Part) -> None:
    assert read_parts(MULTIPART, body([(head, b"v")])) == [part]


def test_an_urlencoded_form() -> None:
    assert read_parts(f"{URLENCODED}; charset=utf-8", b"a=1&&b=%E7%8C%AB+x&c&=d&a=%ff") == [
        Part("a", b"1"),
        Part("b", "猫 x".encode()),
        Part("c", b""),
        Part("", b"d"),
        Part("a", "\ufffd".encode()),
    ]


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/mixed; boundary=x", "\udcff"])
def test_what_is_no_form_has_no_parts(content_type: str) -> None:
    assert read_parts(content_type, b'{"entries": 1}') == []


@pytest.mark.parametrize(
    ("content_type", "content", "detail"),
    [
        ("multipart/form-data", b"", "Missing boundary in multipart."),
        ("multipart/form-data; boundary=", b"", "Missing boundary in multipart."),
        (MULTIPART, b"", "There was an error parsing the body"),
        (MULTIPART, b"--nonsense\r\n", "There was an error parsing the body"),
        (MULTIPART, body([(FILE, b"half an image")])[: -len(BOUNDARY)], "There was an error parsing the body"),
        (
            MULTIPART,
            body([(b"Content-Type: text/plain", b"")]),
            'The Content-Disposition header field "name" must be provided.',
        ),
        (MULTIPART, body([(field(b"text"), b"x" * (MAX_FIELD_BYTES + 1))]), "Part exceeded maximum size of 1024KB."),
        (URLENCODED, b"x" * (MAX_FIELD_BYTES + 1), "Field exceeded maximum size of 1024KB."),
    ],
)
def test_a_refusal_is_in_the_words_of_stock(content_type: str, content: bytes, detail: str) -> None:
    with pytest.raises(FormError) as caught:
        read_parts(content_type, content)
    assert str(caught.value) == detail


def test_a_file_may_be_larger_than_a_field() -> None:
    (part,) = read_parts(MULTIPART, body([(FILE, bytes(MAX_FIELD_BYTES + 1))]))
    assert len(part.value) == MAX_FIELD_BYTES + 1


def test_fields_and_files_are_counted_apart() -> None:
    parts = [(field(b"a"), b""), (FILE, b""), (field(b"b"), b""), (FILE, b"")]
    assert len(read_parts(MULTIPART, body(parts), max_parts=2)) == 4
    with pytest.raises(FormError, match=r"^Too many fields\. Maximum number of fields is 2\.$"):
        read_parts(MULTIPART, body([*parts, (field(b"c"), b"")]), max_parts=2)
    with pytest.raises(FormError, match="Too many files"):
        read_parts(MULTIPART, body([*parts, (FILE, b"")]), max_parts=2)
    assert len(read_parts(URLENCODED, b"a&b", max_parts=2)) == 2
    with pytest.raises(FormError, match="Too many fields"):
        read_parts(URLENCODED, b"a&&", max_parts=2)


def test_many_fields_are_refused_before_they_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "unquote_plus", None)
    with pytest.raises(FormError, match="Too many fields"):
        read_parts(URLENCODED, b"a&" * 100_000)


def test_a_text_is_utf_8_or_else_latin_1() -> None:
    assert decode("猫".encode()) == "猫"
    assert decode(b"caf\xe9") == "café"
