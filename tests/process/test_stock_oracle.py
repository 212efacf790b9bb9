"""No model that a route names is ever run by stock: asked of stock's own parser, in exactly its versions.

``IMMICH_TRITON_EXAMPLES=100000 pytest tests/process/test_stock_oracle.py`` is a thorough run.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from attacks import ATTACKS, BOUNDARY, MULTIPART, UNROUTED, URLENCODED, Attack, body, entries, field, form, post
from gateway_process import GatewayProcess, running_gateway
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import DATA
from proxied_stock import ProxiedStock, proxied
from stand_in_triton import CLIP_NAME, OCR_NAME, stand_in_triton, write_routes
from stock import Seen, StockPipe, StockServer, stock_pipe, stock_server

from immich_triton.immich.model_names import clean_name
from immich_triton.ml.protocol import parse_entries, parse_form

WIRE = DATA / "wire"
EXAMPLES = int(os.environ.get("IMMICH_TRITON_EXAMPLES", "500"))
thorough = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# The first time makes stock's environment.
pytestmark = pytest.mark.timeout(max(600, EXAMPLES))

OURS = {("clip", "textual", CLIP_NAME), ("clip", "visual", CLIP_NAME)} | {
    ("ocr", type_, OCR_NAME) for type_ in ("detection", "recognition")
}


@pytest.fixture(scope="module")
def stock() -> Iterator[StockPipe]:
    with stock_pipe() as pipe:
        yield pipe


@pytest.fixture(scope="module")
def gateway(stock: StockPipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedStock]:
    with proxied(stock, tmp_path_factory.mktemp("proxied")) as one:
        yield one


@pytest.mark.parametrize("name", ATTACKS)
def test_what_stock_would_run_as_ours_never_reaches_it(stock: StockPipe, gateway: ProxiedStock, name: str) -> None:
    attack = ATTACKS[name]
    # It would work, were there no gateway.
    assert OURS & set(stock.ask(attack.target, attack.headers, attack.body).ran)
    assert not OURS & gateway.send(attack).ran


@pytest.mark.parametrize("name", ["unknown_task", "ocr", "clip_textual", "clip_visual", "faces", "multi_clip_ocr"])
def test_recorded_requests_pass_or_are_answered(gateway: ProxiedStock, name: str) -> None:
    headers = json.loads((WIRE / f"{name}.headers.json").read_text())["headers"]
    content = (WIRE / f"{name}.body").read_bytes()
    outcome = gateway.send(post(content, types=[headers["content-type"].encode()]))
    asked = parse_entries(parse_form(headers["content-type"], content).entries)
    names = {
        (task, type_, clean_name(model["modelName"])) for task, types in asked.items() for type_, model in types.items()
    }
    assert outcome.ran == names - OURS
    if not names & OURS:
        assert outcome.unchanged


def test_what_stock_ignores_goes_along_unchanged_or_rebuilt(gateway: ProxiedStock) -> None:
    content = form(entries(UNROUTED), (field(b"album"), "猫".encode()))
    assert gateway.send(post(content)).unchanged
    for attack in (
        post(content, types=[MULTIPART + b"; charset=utf-8"]),
        post(content + b"epilogue"),
        post(content, extra=[b"Content-Encoding: identity"]),
    ):
        outcome = gateway.send(attack)
        assert outcome.ran == {("clip", "textual", UNROUTED)}
        assert b'name="album"\r\n\r\n\xe7\x8c\xab\r\n' in outcome.sent
        assert not outcome.unchanged


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (ATTACKS["two content types"], b"2 Content-Type headers"),
        (post(form(entries(UNROUTED), (field(b"a;b"), b""))), b"every parser reads alike"),
        (post(form(entries(UNROUTED)[:-1] + b"," + entries(CLIP_NAME + ".", "ocr")[1:])), b"Invalid request format"),
    ],
    ids=["two content types", "an odd name", "a type that the task has not"],
)
def test_what_cannot_be_rebuilt_is_refused(gateway: ProxiedStock, attack: Attack, reason: bytes) -> None:
    outcome = gateway.send(attack)
    assert outcome.status in (400, 422)
    assert reason in outcome.answer
    assert not outcome.ran


def test_an_error_names_the_models_as_they_were_spelt(gateway: ProxiedStock) -> None:
    both = b'{"ocr":{"detection":{"modelName":"x/PP-OCRv5_mobile."},"recognition":{"modelName":"PP-OCR.9"}}}'
    outcome = gateway.send(post(form(both)))
    assert outcome.status == 400
    assert b"detection x/PP-OCRv5_mobile., recognition PP-OCR.9" in outcome.answer


@pytest.fixture(scope="module")
def server() -> Iterator[StockServer]:
    with stock_server() as one:
        yield one


@pytest.fixture(scope="module")
def process(server: StockServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    with (
        stand_in_triton() as triton,
        running_gateway(
            directory, models=write_routes(directory / "models"), triton_url=triton.url, upstream=server.url
        ) as one,
    ):
        yield one


def post_raw(address: tuple[str, int], attack: Attack, framing: bytes) -> bytes:
    """Send a request as it stands, and return the status line of the answer."""
    head = b"".join(b"%b: %b\r\n" % header for header in attack.headers)
    with socket.create_connection(address, 60) as client:
        client.sendall(b"POST %b HTTP/1.1\r\nHost: h\r\n%b%b\r\n" % (attack.target, head, framing))
        client.sendall(attack.body)
        with client.makefile("rb") as answer:
            return answer.readline()


@pytest.mark.parametrize("name", ATTACKS)
def test_over_the_wire_it_never_reaches_stock_either(process: GatewayProcess, server: StockServer, name: str) -> None:
    attack = ATTACKS[name]
    length = b"Content-Length: %d\r\n" % len(attack.body)
    host, port = server.url.removeprefix("http://").split(":")
    status = post_raw((host, int(port)), attack, length)
    # uvicorn itself refuses a folded header; all else works without the gateway.
    assert OURS & set(map(tuple, server.take_ran())) or status.startswith(b"HTTP/1.1 400 ")
    assert post_raw(process.address, attack, length).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 4"))
    assert not OURS & set(map(tuple, server.take_ran()))


@pytest.mark.parametrize(
    "target", [b"/predict%0a", b"//predict", b"/%70redict%0A?x", b"/x/../predict%0a", b"/predict/%0a"]
)
def test_without_a_length_any_spelling_of_the_path_gets_411(process: GatewayProcess, target: bytes) -> None:
    attack = Attack(target, ((b"Content-Type", MULTIPART),), b"")
    assert post_raw(process.address, attack, b"Transfer-Encoding: chunked\r\n").startswith(b"HTTP/1.1 411 ")


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
    ],
)
def test_a_body_of_two_lengths_is_refused(process: GatewayProcess, server: StockServer, framing: bytes) -> None:
    # What one of two parsers takes for the end of the body, and what follows for a request of its own.
    hidden = b"0\r\n\r\nPOST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        MULTIPART,
        len(form(entries(CLIP_NAME))),
        form(entries(CLIP_NAME)),
    )
    attack = Attack(b"/predict", ((b"Content-Type", URLENCODED),), hidden)
    assert post_raw(process.address, attack, framing).startswith(b"HTTP/1.1 4")
    assert not server.take_ran()


# Generated requests

NAMES = [
    CLIP_NAME,
    CLIP_NAME.replace("_", ":"),
    f"{CLIP_NAME}.",
    "x/ViT-B-16\\_openai",
    "ViT-B+AC0-16__openai",
    UNROUTED,
    f"{CLIP_NAME} ",
    CLIP_NAME.lower(),
    f"{CLIP_NAME}/",
]
models = st.sampled_from(NAMES).map(entries)
asked = st.one_of(
    models,
    st.tuples(models, models).map(lambda two: two[0][:-1] + b"," + two[1][1:]),
    st.tuples(models, st.sampled_from(["ocr", "pet-detection"])).map(
        lambda one: one[0][:-1] + b"," + entries(OCR_NAME, one[1], "detection")[1:]
    ),
    st.tuples(models, st.sampled_from(["utf-7", "utf-16", "cp037", "utf-8-sig"])).map(
        lambda one: one[0].decode().encode(one[1])
    ),
)
values = st.one_of(
    asked, asked, st.sampled_from([b"hi", b"", b"\xff", "猫".encode(), b"\r\n--" + BOUNDARY]), st.binary(max_size=9)
)
DISPOSITIONS = [
    b'name="entries"',
    b'name="entries"',
    b'name="text"',
    b'name="text"',
    b'name="image"; filename="blob"',
    b'name="image"',
    b'name="other"',
    'name="猫"'.encode(),
    b'name="entries"; filename="x"',
    b"name=entries",
    b"name=<entries>",
    b'name="<entries>"',
    b'NAME="entries"',
    b"name=\"x\"; name*=utf-8''entries",
    b"name*=utf-8''%65ntries",
    b"name*0=ent; name*1=ries",
    b"name*0*=utf-8''ent; name*1=\"ries\"",
    b'name="x"; name="entries"',
    b'name="entr\\ies"',
    b'name="a;name=entries"',
    b'name="x\\"; name=entries; y="',
    b'name=x;\r\n name="entries"',
    b'name="x"\r\nContent-Disposition: form-data; name="entries"',
    b'name="entries"\r\nContent-Transfer-Encoding: base64',
    b'name="entries"\r\nContent-Type: text/plain; charset=utf-7',
    b'name="entries"\r\nContent-Type: multipart/mixed; boundary=x',
    "entries".encode("cp037"),
    b'name="' + "entries".encode("cp037") + b'"',
]
parts = st.tuples(
    st.sampled_from(
        [b"Content-Disposition: form-data; ", b"content-disposition:form-data;", b"Content-Disposition: form-data;\t"]
    ),
    st.one_of(st.sampled_from(DISPOSITIONS), st.binary(max_size=6)),
).map(b"".join)
forms = st.builds(
    lambda some, line, before, after: before + body(some, line=line) + after,
    st.lists(st.tuples(parts, values), min_size=1, max_size=5),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]),
    st.sampled_from([b"", b"", b"", b"\r\n", b"preamble\r\n", form(entries(UNROUTED))]),
    st.sampled_from([b"", b"", b"epilogue", form(entries(CLIP_NAME))]),
)
pairs = st.lists(
    st.one_of(
        st.sampled_from([b"&", b";", b"&&", b"=", b"%", b"+", b"%3b", b"%26"]),
        st.tuples(st.sampled_from([b"entries=", b"text=", b"%65ntries=", b"image=", b"entries+="]), values).map(
            b"".join
        ),
    ),
    max_size=9,
).map(b"".join)
types = st.sampled_from(
    [
        MULTIPART,
        MULTIPART,
        b'multipart/form-data; boundary="' + BOUNDARY + b'"',
        b"multipart/form-data; boundary=x; boundary=" + BOUNDARY,
        MULTIPART + b"; boundary=x",
        b"multipart/form-data; boundary*=utf-8''" + BOUNDARY,
        b"multipart/form-data; boundary*0=" + BOUNDARY[:9] + b"; boundary*1=" + BOUNDARY[9:],
        b"multipart/form-data;\r\n boundary=" + BOUNDARY,
        b"Multipart/Form-Data;boundary=" + BOUNDARY + b" ",
        *(
            MULTIPART + b"; charset=" + charset
            for charset in (b"utf-7", b"utf-16", b"cp037", b"utf-8-sig", b"hex", b"?")
        ),
        URLENCODED,
        URLENCODED + b"; charset=utf-7",
        b"text/plain",
    ]
)
targets = st.one_of(
    st.just(b"/predict"),
    st.lists(
        st.sampled_from([b"/", b"//", b"predict", b"%70redict", b"%0a", b"%0D", b"%20", b"..", b".", b"?", b"#", b";"])
    ).map(lambda steps: b"/" + b"".join(steps)),
)
wild = st.builds(
    lambda target, some, content, extra: post(content, target=target, types=some, extra=extra),
    targets,
    st.one_of(types.map(lambda one: [one]), st.lists(types, max_size=2)),
    st.one_of(forms, forms, pairs),
    st.sampled_from([[], [], [b"Content-Encoding: gzip"], [b"X-HTTP-Method-Override: PUT"]]),
)


def headed(disposition: bytes) -> bytes:
    return b"Content-Disposition: form-data; " + disposition


# What stock runs most of the time: one thing odd, or two.
likely = st.builds(
    lambda target, type_, name, some: post(
        body([(field(b"entries"), name), (field(b"text"), b"hi"), *some]), target=target, types=[type_]
    ),
    st.sampled_from([b"/predict", b"/predict", b"/predict%0a", b"http://h/predict?x", b"/%70redict"]),
    st.one_of(st.just(MULTIPART), types),
    st.one_of(models, asked),
    st.lists(st.tuples(st.sampled_from(DISPOSITIONS).map(headed), asked), max_size=2),
)
likely_pairs = st.builds(
    lambda name, separator, other: post(b"entries=%b&text=hi%b%b" % (name, separator, other), types=[URLENCODED]),
    models,
    st.sampled_from([b"&", b";", b"%26"]),
    st.sampled_from([b"", b"entries=" + entries(CLIP_NAME), b"entries=" + entries(UNROUTED)]),
)
# As Immich asks, of a model that no route names.
plain = st.builds(
    lambda content, extra: post(form(content, *extra)),
    st.sampled_from([entries(UNROUTED), entries(UNROUTED, "ocr", "detection")]),
    st.lists(st.tuples(st.sampled_from([b"text", b"album"]).map(field), st.binary(max_size=9)), max_size=1),
)
requests_ = st.one_of(wild, likely, likely, likely, likely_pairs, plain)


def test_nothing_generated_is_run_as_ours(stock: StockPipe, gateway: ProxiedStock) -> None:
    found: Counter[str] = Counter()

    @thorough
    @given(request_=requests_, chunk=st.sampled_from([65536, 65536, 1, 7]))
    def look(request_: Attack, chunk: int) -> None:
        alone = stock.ask(request_.target, request_.headers, request_.body, chunk)
        outcome = gateway.send(request_, chunk=chunk)
        assert not OURS & outcome.ran
        if alone.ran:
            assert outcome.claimed
        found["would run as ours"] += bool(OURS & set(alone.ran))
        if outcome.seen and outcome.seen.ran:
            found["unchanged" if outcome.unchanged else "rebuilt"] += 1
            check_as_understood(request_, outcome.seen)
            assert not outcome.unchanged or outcome.seen == alone

    look()
    # A generator that never gets past the parser, or never harms stock, proves nothing.
    assert all(found[kind] >= EXAMPLES // 200 for kind in ("would run as ours", "unchanged", "rebuilt")), found


def check_as_understood(request_: Attack, seen: Seen) -> None:
    """Check that stock saw what the gateway had read."""
    (content_type,) = [value for name, value in request_.headers if name == b"Content-Type"]
    understood = parse_form(content_type.decode("utf-8", "surrogateescape"), request_.body)
    named = {
        (task, type_, clean_name(model["modelName"]))
        for task, types_ in parse_entries(understood.entries).items()
        for type_, model in types_.items()
    }
    image = None if understood.image is None else hashlib.sha256(understood.image).hexdigest()
    assert (set(seen.ran), seen.image, seen.text) == (named, image, understood.text)
