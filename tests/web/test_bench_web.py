"""The benchmark of the site runs against anything that answers like Immich, and says what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import bench_web
import pytest
from immich_photos import KEY, Photo
from immich_site import running_site

from harness.ports import free_ports


def arguments(immich: str, *more: str) -> list[str]:
    bare, site = free_ports(2)
    return ["--immich", immich, "--ports", str(bare), str(site), "--requests", "10", "--rounds", "1", *more]


def test_it_compares_immich_a_bare_mitmdump_and_the_site(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMMICH_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "200")
    with running_site(photos=[Photo(1, ["停水"])]) as immich:
        assert bench_web.main(arguments(immich.url, "--query", "停水", "--options", "--set web_depth=5")) == 0
        assert {request.json["size"] for request in immich.of("/smart")} == {
            100
        }  # never less than the page that is asked
        assert immich.of("/ocr")  # the site was asked, and ranked
    printed = capsys.readouterr().out
    for word in ("Immich itself", "bare mitmdump", "the site", "search 停水", "/api/server/ping", "immich: 2.7.5"):
        assert word in printed


def test_a_port_that_another_listens_at_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """A site that ran at the default port was measured in place of the one to be started."""
    with running_site() as immich:
        taken = immich.url.rpartition(":")[2]
        assert bench_web.main(["--immich", immich.url, "--ports", str(free_ports(1)[0]), taken]) == 1
    assert f"something listens at port {taken} already" in capsys.readouterr().err


def test_what_is_added_is_the_median_of_the_differences_of_neighbours() -> None:
    assert bench_web.added([3, 103, 5], [1, 100, 4]) == 2


def test_packages_that_are_missing_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])  # where packages are looked for
    assert [bench_web.facts()[name] for name in ("rjieba", "opencc")] == ["unknown", "unknown"]


def test_a_mitmdump_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    stubborn = tmp_path / "mitmdump"
    stubborn.write_text(
        f"#!{sys.executable}\nimport signal, socket, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"with socket.create_server(('127.0.0.1', {port})):\n    time.sleep(600)\n"
    )
    stubborn.chmod(0o755)
    monkeypatch.setattr(bench_web, "END", 0.5)
    monkeypatch.setattr("immich_triton.server.die_with_parent.wrap", lambda _line: [str(stubborn)])
    with bench_web.running("regular", port, []):
        assert bench_web.listens(port)
    assert not bench_web.listens(port)


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("IMMICH_API_KEY", raising=False)
    assert bench_web.main(["--query", "cat"]) == 1
    assert "needs an API key in IMMICH_API_KEY" in capsys.readouterr().err
    gone = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert bench_web.main(arguments(gone)) == 1
    assert f"there is no Immich at {gone}" in capsys.readouterr().err
