"""Programs that ask the gateway, when a secret first segment of the path lets them in, and when they lack it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway_process import GatewayProcess, kept, running_gateway
from immich_server import KEY, running_immich
from looked_at import ocr_answer
from places import DATA
from recorder import Recorder, recording_upstream
from stand_in_triton import StandInTriton, stand_in_triton, write_routes

from immich_triton.cli import compare, diagnosis, doctor, predict

TOKEN = "correct-horse_battery-staple"  # noqa: S105 - of this test
RECEIPT = DATA / "images" / "zh_receipt.jpg"

Printed = Callable[[], str]


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture(scope="module")
def stock() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        recorder.answer = (200, ocr_answer(1))
        yield recorder


@pytest.fixture(scope="module")
def gateway(
    triton: StandInTriton, stock: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    with running_gateway(
        directory,
        models=write_routes(directory / "models"),
        triton_url=triton.url,
        upstream=stock.url,
        immich_path_token=kept(directory, TOKEN),
    ) as process:
        yield process


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    def read() -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    return read


def examine(gateway: GatewayProcess, triton: StandInTriton, url: str, *more: str) -> None:
    models, state = gateway.state_dir.parent / "models", gateway.state_dir
    line = ["--url", url, "--triton", triton.url, "--models", str(models), "--state-dir", str(state)]
    doctor.main([*line, *more])


@pytest.mark.parametrize("end", ["", "/"])
def test_predict(gateway: GatewayProcess, printed: Printed, end: str) -> None:
    assert predict.main([str(RECEIPT), "--url", f"{gateway.url}/{TOKEN}{end}"]) == 0
    assert "1 lines" in printed()


def test_predict_without_the_token(gateway: GatewayProcess, printed: Printed) -> None:
    assert predict.main([str(RECEIPT), "--url", gateway.url]) == 1
    assert "wants a token (immich_path_token), add it to the address: --url http://…/TOKEN" in printed()


@pytest.mark.parametrize("end", ["", "/"])
def test_compare(gateway: GatewayProcess, stock: Recorder, tmp_path: Path, end: str) -> None:
    report = tmp_path / "report.html"
    line = [str(RECEIPT), "--task", "ocr", "--stock", stock.url, "--report", str(report)]
    assert compare.main([*line, "--url", f"{gateway.url}/{TOKEN}{end}"]) == 0
    assert "ocr 1 of 1/1 lines match" in report.read_text()


def test_compare_without_the_token(gateway: GatewayProcess, stock: Recorder, tmp_path: Path, printed: Printed) -> None:
    report = tmp_path / "report.html"
    assert compare.main([str(RECEIPT), "--stock", stock.url, "--report", str(report), "--url", gateway.url]) == 1
    assert f"compare: the gateway at {gateway.url} answers 404 to /ping; if the gateway wants a token" in printed()
    assert not report.exists()


@pytest.mark.parametrize("end", ["", "/"])
def test_doctor(gateway: GatewayProcess, triton: StandInTriton, printed: Printed, end: str) -> None:
    examine(gateway, triton, f"{gateway.url}/{TOKEN}{end}")
    text = printed()
    assert f"✓ the gateway answers at {gateway.url}/…; every route is ready" in text
    assert "✓ the stock ML answers behind it" in text
    assert TOKEN not in text, "people show such a text to others"


@pytest.mark.parametrize(("path", "what"), [("", "a token"), ("/wrong", "another token than this")])
def test_doctor_without_the_token(
    gateway: GatewayProcess, triton: StandInTriton, printed: Printed, path: str, what: str
) -> None:
    examine(gateway, triton, f"{gateway.url}{path}")
    lines = printed().splitlines()
    (index,) = [index for index, line in enumerate(lines) if "✗ the gateway at " in line]
    assert lines[index].endswith(f" wants {what} (immich_path_token)")
    assert f"--url {gateway.url}/TOKEN; Immich's machine learning URL is then {gateway.url}/TOKEN/" in lines[index + 1]
    assert not any("stock ML" in line and "answer" in line for line in lines), "its health is not known"


def test_doctor_on_an_immich_without_the_token(
    gateway: GatewayProcess, triton: StandInTriton, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMMICH_API_KEY", KEY)
    with running_immich(urls=[gateway.url]) as immich:
        examine(gateway, triton, f"{gateway.url}/{TOKEN}", "--immich", immich.url)
    text = printed()
    assert f"✗ Immich asks the gateway at {gateway.url} without its token" in text
    assert "✓ Immich asks" not in text
    assert "Immich also lists" not in text


@pytest.mark.parametrize(
    ("path", "version", "level"),
    [
        (f"/{TOKEN}/", "3.0.0", "ok"),
        (f"/{TOKEN}", "3.0.0", "error"),  # without the slash at the end Immich drops it, as every browser does
        (f"/{TOKEN}/", "2.7.5", "error"),  # it asks at the root, whatever the path
        ("/", "3.0.0", "error"),
    ],
)
def test_doctor_asks_where_immich_asks(gateway: GatewayProcess, path: str, version: str, level: str) -> None:
    (finding,) = diagnosis.addresses((f"{gateway.url}{path}",), version, routes_clip=True)
    assert finding.level == level
    if level == "error":
        assert f"{gateway.url}/TOKEN/, with the slash at the end" in finding.fix
        assert f"it takes Immich 3.0 or later, this is {version}" in finding.fix
