"""A machine-learning service is asked the way Immich does."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
import requests
from places import DATA
from recorder import Recorder, recording_upstream

from harness.ports import free_ports
from immich_triton.immich.ml_client import ENTRIES, cause, encode, entries_for, predict, shown
from immich_triton.ml.protocol import parse_entries, parse_form

WIRE = DATA / "wire"


@pytest.fixture(scope="module")
def service() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


def test_a_task_may_be_asked_of_another_model() -> None:
    assert entries_for("ocr") == ENTRIES["ocr"]
    asked = entries_for("ocr", "other")["ocr"]
    assert {entry["modelName"] for entry in asked.values()} == {"other"}
    assert asked["detection"]["options"] == ENTRIES["ocr"]["ocr"]["detection"]["options"]
    assert ENTRIES["ocr"]["ocr"]["detection"]["modelName"] != "other", "the table stays as it is"
    with pytest.raises(KeyError):
        entries_for("pets")


@pytest.mark.parametrize("name", ["ocr", "faces"])
def test_what_is_sent_reads_like_what_immich_sent(name: str) -> None:
    recorded = (WIRE / f"{name}.body").read_bytes()
    headers = json.loads((WIRE / f"{name}.headers.json").read_text())["headers"]
    theirs = parse_form(headers["content-type"], recorded)
    ours = parse_form(*encode(entries_for(name), image=theirs.image))
    assert ours.image == theirs.image
    assert ours.exact
    assert parse_entries(ours.entries).keys() == parse_entries(theirs.entries).keys()


def test_parts_stand_in_immichs_order() -> None:
    _, body = encode({}, image=b"\xff", text="猫")
    places = [body.index(b'name="%s"' % name) for name in (b"entries", b"image", b"text")]
    assert places == sorted(places)
    assert b'name="image"; filename="blob"' in body


def test_an_answer_is_parsed_where_it_can_be(service: Recorder) -> None:
    for end in ("", "/"):
        answer = predict(service.url + end, entries_for("clip-text"), text="a cat")
        assert (answer.status, answer.body) == (200, {"from": "upstream"})
        assert answer.seconds > 0
        assert answer.headers["x-up"] == "yes"
    assert {request.target for request in service.seen} == {"/predict"}
    service.answer = (500, b"<html>")
    answer = predict(service.url, {}, text="a cat")
    assert (answer.status, answer.body) == (500, "<html>")


def test_nobody_there_is_an_error_of_requests() -> None:
    with pytest.raises(requests.ConnectionError) as caught:
        predict(f"http://127.0.0.1:{free_ports(1)[0]}", {}, text="x")
    assert cause(caught.value) == "[Errno 111] Connection refused"


@pytest.mark.parametrize(
    ("url", "for_people"),
    [
        ("http://ml:3003", "http://ml:3003"),
        ("http://ml:3003/", "http://ml:3003"),
        ("http://gateway:3004/s3cret/", "http://gateway:3004/…"),
        ("https://user:s3cret@ml", "https://ml"),
        ("no address", "no address"),
        ("gateway:3004/s3cret", "gateway:3004/…"),
        ("http://gateway:port/s3cret", "http://gateway:port/…"),
        ("http://gateway:3004?s3cret", "http://gateway:3004/…"),
        ("http:///s3cret", "http:///…"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, for_people: str) -> None:
    assert shown(url) == for_people


def test_the_end_of_a_chain_of_errors_says_what_it_was() -> None:
    assert cause(ValueError("outer: inner: no memory")) == "no memory"
    assert cause(ValueError("no memory")) == "no memory"


TIMED_OUT = """HTTPConnectionPool(host='10.0.0.1', port=80): Max retries exceeded with url: /s3cret/predict (Caused by \
ConnectTimeoutError(<HTTPConnection(host='10.0.0.1', port=80) at 0x7f>, 'Connection to 10.0.0.1 timed out. \
(connect timeout=1)'))"""
REFUSED = """HTTPConnectionPool(host='a', port=1): Max retries exceeded with url: /s3cret/ping (Caused by \
NewConnectionError("HTTPConnection(host='a', port=1): Failed to establish a new connection: [Errno 111] \
Connection refused"))"""
NO_SCHEME = "Invalid URL 'gateway/s3cret': No scheme supplied. Perhaps you meant https://gateway/s3cret?"


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (TIMED_OUT, "Connection to 10.0.0.1 timed out. (connect timeout=1)"),
        (REFUSED, "[Errno 111] Connection refused"),
        ("Failed to parse: http://gateway:port/s3cret", "http://gateway:port/…"),
        (NO_SCHEME, "No scheme supplied. Perhaps you meant https://gateway/…"),
    ],
)
def test_no_error_tells_the_token_in_the_address(problem: str, said: str) -> None:
    assert cause(requests.RequestException(problem)) == said


def test_a_server_that_hangs_does_not_make_the_token_known() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/s3cret"
        with pytest.raises(requests.RequestException) as caught:
            predict(url, {}, text="x", timeout=0.2)
    assert "s3cret" not in cause(caught.value)
