"""Downloading large files: against a real HTTP server that breaks off, changes its file, or states a hash."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.ports import free_ports
from immich_triton.export.download import Downloaded, DownloadError, download, fetch

CONTENT = bytes(range(256)) * 20_000  # 5 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class FileServer:
    """Serves one file at ``/weights.pt``; ``requests`` are the Range headers that came (None: without)."""

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"1"'
    break_after: int | None = None
    stated: str | None = None
    status: int = 200
    requests: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append(wanted)
            if state.status != 200:
                self.send_error(state.status)
                return
            if self.path == "/moved.pt":
                self.send_response(302)
                self.send_header("Location", "/weights.pt")
                self.send_header("X-Linked-ETag", f'"{state.stated}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content, start = state.content, 0
            match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
            if match and self.headers.get("If-Range") == state.etag:
                start = int(match[1])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if state.break_after is None:
                self.wfile.write(content[start:])
            else:
                self.wfile.write(content[start : start + state.break_after])
                self.close_connection = True

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_port}/weights.pt"
        yield state
        http.shutdown()
        thread.join()


@dataclass
class Place:
    target: Path
    ledger: Path

    def get(self, url: str, sha256: str | None = None) -> Downloaded:
        return fetch(url, self.target, sha256=sha256, ledger=self.ledger, offline_hint="Use --weights.")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "cache" / "weights.pt", tmp_path / "cache" / "sha256.json")


def test_the_file_arrives_and_its_hash_is_recorded(server: FileServer, place: Place) -> None:
    done = place.get(server.url)
    assert place.target.read_bytes() == CONTENT
    assert done.sha256 == SHA256
    assert "nothing to check it against yet" in done.basis
    assert json.loads(place.ledger.read_text())["weights.pt"]["sha256"] == SHA256


def test_a_file_that_is_there_is_checked_and_not_downloaded_again(server: FileServer, place: Place) -> None:
    place.get(server.url)
    assert "recorded at the first download" in place.get(server.url).basis
    assert len(server.requests) == 1
    place.target.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="not the file it should be"):
        place.get(server.url)


def test_a_later_download_must_equal_the_first(server: FileServer, place: Place) -> None:
    place.get(server.url)
    place.target.unlink()
    server.content, server.etag = b"something else", '"2"'
    with pytest.raises(DownloadError, match=f"expected {SHA256}.*recorded at the first download"):
        place.get(server.url)
    assert not place.target.exists()


def test_a_pinned_hash_is_checked(server: FileServer, place: Place) -> None:
    assert "pinned" in place.get(server.url, SHA256).basis
    other = Place(place.target.with_name("other.pt"), place.ledger)
    with pytest.raises(DownloadError, match="pinned"):
        other.get(server.url, "0" * 64)
    assert not other.target.exists()


def test_a_hash_that_the_host_states_is_checked(server: FileServer, place: Place) -> None:
    server.stated = SHA256
    url = server.url.replace("weights", "moved")
    assert "stated by the host" in place.get(url).basis
    other = Place(place.target.with_name("other.pt"), place.ledger)
    server.stated = "f" * 64
    with pytest.raises(DownloadError, match="stated by the host"):
        other.get(url)


def test_a_broken_transfer_is_taken_up_again(server: FileServer, place: Place) -> None:
    server.break_after = 2_000_000
    assert place.get(server.url).sha256 == SHA256
    assert server.requests == [None, "bytes=1966080-", "bytes=3932160-"]  # whole chunks of 64 KiB


def test_an_interrupted_download_goes_on_in_the_next_run(server: FileServer, place: Place) -> None:
    part = place.target.with_name("weights.pt.part")
    part.parent.mkdir()
    part.write_bytes(CONTENT[:3_000_000])
    part.with_name("weights.pt.part.etag").write_text('"1"')
    assert place.get(server.url).sha256 == SHA256
    assert server.requests == ["bytes=3000000-"]
    assert sorted(path.name for path in place.target.parent.iterdir()) == ["sha256.json", "weights.pt"]


def test_a_whole_part_needs_nothing_more(server: FileServer, place: Place) -> None:
    part = place.target.with_name("weights.pt.part")
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    part.with_name("weights.pt.part.etag").write_text('"1"')
    assert place.get(server.url).sha256 == SHA256


def test_the_rest_of_another_version_is_not_appended(server: FileServer, place: Place) -> None:
    part = place.target.with_name("weights.pt.part")
    part.parent.mkdir()
    part.write_bytes(b"old" * 1_000_000)
    part.with_name("weights.pt.part.etag").write_text('"0"')
    assert place.get(server.url).sha256 == SHA256


def test_without_a_strong_validator_a_transfer_starts_over(server: FileServer, place: Place) -> None:
    server.etag = 'W/"1"'
    part = place.target.with_name("weights.pt.part")
    part.parent.mkdir()
    part.write_bytes(b"x" * 100)
    assert place.get(server.url).sha256 == SHA256
    assert server.requests == [None]


def test_offline_is_said_at_once_with_what_to_do(place: Place) -> None:
    (port,) = free_ports(1)
    with pytest.raises(DownloadError, match=r"cannot be downloaded: ConnectionError.*Use --weights\."):
        place.get(f"http://127.0.0.1:{port}/weights.pt")
    assert not place.ledger.exists()


def test_a_refusal_of_the_server_is_passed_on(server: FileServer, place: Place) -> None:
    server.status = 404
    with pytest.raises(DownloadError, match="answered 404"):
        place.get(server.url)


def test_download_returns_the_hash(server: FileServer, place: Place) -> None:
    assert download(server.url, place.target, sha256=None, ledger=place.ledger) == SHA256
