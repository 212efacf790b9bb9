"""Who may ask: the token in the path, TLS, and what an open proxy would allow. All with a real mitmdump."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gateway_process import GatewayProcess, kept, running_gateway
from mitmproxy.test import taddons
from recorder import Recorder, recording_upstream
from stand_in_triton import StandInTriton, stand_in_triton, write_routes

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.ml.configuration import Configuration
from immich_triton.ml.service import Service
from immich_triton.proxy.auth import Auth

TOKEN = "correct-horse_battery-staple"  # noqa: S105 - of this test


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(
    triton: StandInTriton, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway that wants the token."""
    directory = tmp_path_factory.mktemp("gateway")
    with running_gateway(
        directory,
        models=write_routes(directory / "models"),
        triton_url=triton.url,
        upstream=upstream.url,
        immich_path_token=kept(directory, TOKEN),
    ) as process:
        yield process


def exchange(gateway: GatewayProcess, request: bytes) -> bytes:
    """Send what ends the connection, and return all that comes back."""
    with socket.create_connection(gateway.address, 60) as client:
        client.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65536):
                answer += data
        return answer


def test_with_the_token_everything_works_and_nobody_behind_sees_it(gateway: GatewayProcess, upstream: Recorder) -> None:
    base = f"{gateway.url}/{TOKEN}"
    # Eventually: Triton has less than a second to say that it is ready.
    assert eventually(lambda: requests.get(f"{base}/ping", timeout=60).text == "pong")
    assert predict(base, entries_for("ocr"), image=b"image").status == 200
    assert requests.get(f"{base}/some/where?x=1", timeout=60).status_code == 200
    assert upstream.seen[-1].target == "/some/where?x=1"
    assert requests.get(base, timeout=60).status_code == 200
    assert upstream.seen[-1].target == "/"


@pytest.mark.parametrize(
    "path",
    ["/ping", "/predict", "/", f"/{TOKEN}x/ping", f"/{TOKEN[:-1]}/ping", f"//{TOKEN}/ping", f"/x/../{TOKEN}/ping"],
)
def test_without_the_token_there_is_nothing(gateway: GatewayProcess, upstream: Recorder, path: str) -> None:
    seen = len(upstream.seen)
    for method in ("GET", "POST", "HEAD"):
        connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        assert response.status == 404
        assert body == (b"" if method == "HEAD" else b'{"detail":"Not Found"}')
    assert len(upstream.seen) == seen


@pytest.mark.parametrize("target", [b"/\xff", b"/%s\xff/ping" % TOKEN.encode(), b"/?\xff"])
def test_a_path_that_is_no_text_is_one_without_the_token(
    gateway: GatewayProcess, upstream: Recorder, target: bytes
) -> None:
    seen = len(upstream.seen)
    assert exchange(gateway, b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % target).startswith(b"HTTP/1.1 404 ")
    assert len(upstream.seen) == seen


def test_the_token_is_never_written_down(gateway: GatewayProcess) -> None:
    requests.get(f"{gateway.url}/{TOKEN}/ping", timeout=60)
    requests.get(f"{gateway.url}/x/{TOKEN}/ping", timeout=60)
    exchange(gateway, f"GET /{TOKEN}/ping HTTP/0.9\r\n\r\n".encode())
    exchange(gateway, f"GET /{TOKEN}/ping HTTP/1.1 and more\r\n\r\n".encode())
    with socket.create_connection(gateway.address, 60) as client:
        client.sendall(f"GET /{TOKEN}/ping HTTP/1.1\r\nHost:".encode())
    assert eventually(lambda: "before completing request headers" in gateway.log)
    assert TOKEN[:-2] not in gateway.whole_log()


ABUSE = {
    "another host in the target": b"GET http://other.example/%s HTTP/1.1\r\nHost: other.example\r\n",
    "another host in the header": b"GET /%s HTTP/1.1\r\nHost: other.example\r\n",
}


@pytest.mark.parametrize("request_", ABUSE.values(), ids=ABUSE.keys())
def test_requests_for_another_host_go_to_the_upstream_as_its_own(
    gateway: GatewayProcess, upstream: Recorder, request_: bytes
) -> None:
    answer = exchange(gateway, request_ % f"{TOKEN}/x".encode() + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (upstream.seen[-1].target, upstream.seen[-1].header("host")) == ("/x", upstream.url.removeprefix("http://"))


FRAMINGS = {
    "both lengths": b"Content-Length: 4\r\nTransfer-Encoding: chunked",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 40",
    "a list of lengths": b"Content-Length: 4, 40",
    "a signed length": b"Content-Length: +4",
    "an unknown encoding": b"Transfer-Encoding: xchunked",
    "an encoding twice": b"Transfer-Encoding: chunked, chunked",
    "a space in a name": b"Transfer-Encoding : chunked",
}


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS.keys())
def test_a_request_that_can_be_read_in_two_ways_is_refused(
    gateway: GatewayProcess, upstream: Recorder, framing: bytes
) -> None:
    seen = len(upstream.seen)
    token = TOKEN.encode()
    smuggled = b"0\r\n\r\nGET /%s/smuggled HTTP/1.1\r\nHost: h\r\n\r\n" % token
    answer = exchange(gateway, b"POST /%s/x HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n%s" % (token, framing, smuggled))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert len(upstream.seen) == seen


def test_connect_is_refused(gateway: GatewayProcess, upstream: Recorder) -> None:
    seen = len(upstream.seen)
    target = upstream.url.removeprefix("http://").encode()
    answer = exchange(gateway, b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert len(upstream.seen) == seen


def test_only_websockets_are_upgraded(gateway: GatewayProcess, upstream: Recorder) -> None:
    headers = {"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA", "Connection": "Upgrade, HTTP2-Settings"}
    requests.get(f"{gateway.url}/{TOKEN}/x", headers=headers, timeout=60)
    assert upstream.seen[-1].header("upgrade") is None
    assert upstream.seen[-1].header("http2-settings") is None


def test_http2_is_not_spoken(gateway: GatewayProcess) -> None:
    answer = exchange(gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    assert not answer.startswith(b"\0\0")


@pytest.mark.parametrize(
    ("mode", "host", "token", "warns"),
    [
        ("reverse:http://h", "0.0.0.0", "", True),
        ("reverse:http://h", "", "", True),
        ("reverse:http://h", "::", "", True),
        ("reverse:http://h@192.0.2.1:80", "127.0.0.1", "", True),
        ("reverse:http://h", "127.0.0.1", "", False),
        ("reverse:http://h", "::1", "", False),
        ("reverse:http://h", "0.0.0.0", TOKEN, False),
    ],
)
def test_a_listener_for_others_warns_without_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str, host: str, token: str, *, warns: bool
) -> None:
    service = Service()
    configuration, auth = Configuration(service), Auth(service)
    with taddons.context() as context:
        context.options.update(mode=[mode], listen_host=host)
        context.master.addons.add(configuration)
        own = {
            "immich_models": str(tmp_path),
            "immich_state_dir": str(tmp_path / "state"),
            "immich_path_token": kept(tmp_path, token) if token else "",
        }
        context.configure(configuration, **own)
        auth.running()
        auth.done()
    assert ("Set immich_path_token" in caplog.text) is warns


def test_tls_with_a_local_authority(triton: StandInTriton, upstream: Recorder, tmp_path: Path) -> None:
    authority, certificate = issue(tmp_path)
    with running_gateway(
        tmp_path,
        models=write_routes(tmp_path / "models"),
        triton_url=triton.url,
        upstream=upstream.url,
        certs=f"*={certificate}",
        immich_max_body_mib=1,
        immich_header_timeout=2,
    ) as gateway:
        with requests.Session() as session:
            session.trust_env, session.verify = False, str(authority)
            base = gateway.url.replace("http://", "https://")
            assert eventually(lambda: session.get(f"{base}/ping", timeout=60).text == "pong")
            # Answers that we write ourselves are encrypted too.
            assert session.post(f"{base}/predict", data=iter([b"x"]), timeout=60).status_code == 411
            assert session.post(f"{base}/predict", data=bytes(2 << 20), timeout=60).status_code == 413
            assert session.get(f"{base}/x", timeout=60).content == upstream.answer[1]
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{base}/ping", timeout=60)
        # Limits count one request at a time per connection: no HTTP/2.
        context = ssl.create_default_context(cafile=str(authority))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(gateway.address, 60) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as encrypted,
        ):
            assert encrypted.selected_alpn_protocol() == "http/1.1"
        # A handshake that does not end does not stay.
        with socket.create_connection(gateway.address, 60) as client:
            client.sendall(b"\x16\x03\x01\x02\x00\x01")
            assert client.recv(100) == b""


def issue(directory: Path) -> tuple[Path, Path]:
    """Make a local authority and a certificate for 127.0.0.1; return the files of both (the second with its key)."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("local authority", "gateway")]

    def certificate(subject: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(names[subject])
            .issuer_name(names[0])
            .public_key(keys[subject].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    root = (
        certificate(0)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key()), critical=False)
        .sign(keys[0], hashes.SHA256())
    )
    leaf = (
        certificate(1)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
        .sign(keys[0], hashes.SHA256())
    )
    authority, own = directory / "authority.pem", directory / "gateway.pem"
    authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    own.write_bytes(key + leaf.public_bytes(serialization.Encoding.PEM))
    return authority, own


def test_mitmweb_wants_a_password_also_when_nobody_chose_one(
    triton: StandInTriton, upstream: Recorder, tmp_path: Path
) -> None:
    (web_port,) = free_ports(1)
    with running_gateway(
        tmp_path,
        models=write_routes(tmp_path / "models"),
        triton_url=triton.url,
        upstream=upstream.url,
        program="mitmweb",
        web_host="0.0.0.0",
        web_port=web_port,
        web_open_browser="false",
    ) as gateway:
        assert eventually(lambda: requests.get(f"{gateway.url}/ping", timeout=60).text == "pong")
        for path in ("/", "/flows", "/flows.json"):
            assert requests.get(f"http://127.0.0.1:{web_port}{path}", timeout=60).status_code == 403
