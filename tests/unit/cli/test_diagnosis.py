"""Each part of an installation is looked at by itself; all of it by the command: test_doctor.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from background_loop import in_background
from small_models import write_model, write_ocr_route
from stand_in_triton import StandInTriton, stand_in_triton, write_routes

from harness.ports import free_ports
from immich_triton.cli import diagnosis
from immich_triton.cli.findings import Finding, Level
from immich_triton.ml.routes import RouteTable, load_routes
from immich_triton.server import preflight
from immich_triton.server.idle import Idle
from immich_triton.server.idle_socket import IdleSocket
from immich_triton.server.triton_settings import TritonSettings


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def test_shared_memory(tmp_path: Path) -> None:
    def found(folder: Path, least: int, ample: int) -> Finding:
        (finding,) = [each for each in diagnosis.machine(folder, least, ample) if str(folder) in each.text]
        return finding

    assert found(tmp_path, 1, 1).level == "ok"
    assert found(tmp_path / "missing", 1, 1).level == "error"
    for level, least in [("error", 1 << 40), ("warning", 1)]:
        scarce = found(tmp_path, least, 1 << 40)
        assert scarce.level == level
        assert "--shm-size=1g" in scarce.fix


def test_shared_memory_with_which_triton_starts_is_no_error(tmp_path: Path) -> None:
    assert TritonSettings(tmp_path, 8000, 8002, tmp_path).shared_memory_mib == diagnosis.LEAST_MIB < diagnosis.AMPLE_MIB


def test_a_machine_that_cannot_run_triton_needs_no_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise preflight.StartError("the embedded Triton exists for Linux only")

    monkeypatch.setattr(preflight, "check_platform", refuse)
    assert list(diagnosis.machine()) == [Finding("note", "the embedded Triton exists for Linux only")]


# Models


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository in which OCR is whole."""
    folder = tmp_path / "models"
    write_ocr_route(write_model(folder, "ocr"))
    return folder


def test_what_is_routed_and_what_is_not(models: Path) -> None:
    found: list[RouteTable] = []
    findings = list(diagnosis.models(models, found))
    assert levels(findings) == ["ok", "note", "note"]
    assert findings[0].text == "ocr PP-OCRv5_mobile"
    assert "Smart Search is not routed" in findings[1].text
    assert "immich-triton export faces" in findings[2].text
    assert [route.task for route in found[0].routes] == ["ocr"]


def test_a_model_that_lacks_a_file(models: Path) -> None:
    (models / "ocr/1/model.py").unlink()
    assert any(one.level == "error" and "ocr: model.py is missing" in one.text for one in diagnosis.models(models, []))


def test_random_weights_are_worth_a_warning(models: Path) -> None:
    route = models / "ocr/route.toml"
    text = route.read_text()
    route.write_text(text.replace("\n[[pipelines]]", "untrained = true\n\n[[pipelines]]"))
    (warning,) = (one for one in diagnosis.models(models, []) if one.level == "warning")
    assert (warning.text, warning.fix) == (
        "ocr PP-OCRv5_mobile: random weights",
        "made for tests; export with immich-triton export ocr",
    )


def test_a_repository_that_cannot_be_read_is_the_only_finding(tmp_path: Path) -> None:
    found: list[RouteTable] = []
    assert levels(diagnosis.models(tmp_path / "nowhere", found)) == ["error"]
    assert found == []


def test_routes_without_models_are_those_of_a_gateway_alone(tmp_path: Path) -> None:
    """Triton and its models are on another machine then; docs/deploy.md has only the routes copied."""
    found = list(diagnosis.models(write_routes(tmp_path / "models"), []))
    assert not [finding for finding in found if finding.level == "error"], found
    assert any("the models are on Triton's machine" in finding.text for finding in found)


def test_they_are_in_a_clone_too_where_the_pipelines_lie(tmp_path: Path) -> None:
    folder = write_routes(tmp_path / "models")
    for pipeline in ("ocr", "clip_image", "clip_text"):
        write_model(folder, pipeline)
    found = list(diagnosis.models(folder, []))
    assert levels(found).count("error") == 0
    assert found[0].text == "only routes lie here: the models are on Triton's machine"
    (folder / "ocr_rec/1").mkdir(parents=True)
    assert levels(diagnosis.models(folder, [])).count("error") > 0, "a model that lost a file is no copy of a route"


# Triton


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture
def table(tmp_path: Path) -> RouteTable:
    return load_routes(write_routes(tmp_path / "routes"))


def test_what_answers_like_no_triton(stand_in: StandInTriton, table: RouteTable) -> None:
    (finding,) = diagnosis.triton(stand_in.url, table)  # it does not say what it is
    assert (finding.level, finding.text) == ("error", f"what answers at {stand_in.url} is no Triton")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    (finding,) = diagnosis.triton(nobody, table)
    assert f"no Triton answers at {nobody}: " in finding.text


class Answers:
    """Answers for a Triton, a gateway and a stock ML: by path, status and body."""

    def __init__(self) -> None:
        self.url = ""
        self.paths: dict[str, tuple[int, object]] = {}
        self.gives_id_back = True

    async def handle(self, request: web.Request) -> web.Response:
        status, body = self.paths.get(request.path, (404, {}))
        mark = request.headers.get("X-Request-ID", "")
        return web.json_response(body, status=status, headers={"X-Request-ID": mark} if self.gives_id_back else {})


@pytest.fixture(scope="module")
def server() -> Iterator[Answers]:
    answers = Answers()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answers.handle)
    with in_background(app) as answers.url:
        yield answers


@pytest.fixture
def answers(server: Answers) -> Answers:
    server.paths, server.gives_id_back = {}, True
    return server


def test_each_model_is_ready_or_has_a_reason(answers: Answers, table: RouteTable) -> None:
    answers.paths = {
        "/v2": (200, {"name": "triton", "version": "2.51.0"}),
        "/v2/repository/index": (200, [{"name": "visual", "state": "UNAVAILABLE", "reason": "no memory"}]),
        **{f"/v2/models/{name}/ready": (200, {}) for name in ("ocr", "ocr_det", "ocr_rec", "clip_image", "clip_text")},
    }
    findings = list(diagnosis.triton(answers.url, table))
    assert findings[0] == Finding("ok", f"triton 2.51.0 answers at {answers.url}")
    assert [one.text for one in findings if one.level == "error"] == [
        "textual is not ready: Triton does not know it",
        "visual is not ready: no memory",
    ]
    answers.paths["/v2/repository/index"] = (500, {})
    assert any(
        one.text == "visual is not ready: Triton does not know it" for one in diagnosis.triton(answers.url, table)
    )


def test_a_model_that_sleeps_is_well(answers: Answers, table: RouteTable, tmp_path: Path) -> None:
    answers.paths = {"/v2": (200, {"name": "triton", "version": "2.51.0"}), "/v2/repository/index": (200, [])}
    idle = Idle(10)
    idle.follow({"visual": ("visual", "clip_image"), "ocr": ("ocr", "ocr_det", "ocr_rec")})
    idle.begin(["visual", "clip_image", "ocr", "ocr_det", "ocr_rec"])
    assert diagnosis.asleep(tmp_path) == {}, "nobody says anything"
    door = IdleSocket(tmp_path, idle)
    door.open()
    try:
        states = {**diagnosis.asleep(tmp_path), "visual": "asleep", "clip_image": "waking"}
    finally:
        door.close()
    assert states["ocr"] == "loading"
    found = {one.text: one.level for one in diagnosis.triton(answers.url, table, states=states)}
    assert found["visual is asleep, until somebody asks (--idle-unload)"] == "ok"
    assert found["clip_image is being loaded: somebody asks for it (--idle-unload)"] == "ok"
    assert found["ocr is not ready: Triton does not know it"] == "error"


def test_a_key_is_missing_or_wrong(answers: Answers, table: RouteTable) -> None:
    answers.paths = {"/v2": (200, {"version": "2.51.0"}), "/v2/repository/index": (403, {})}
    for key, level, fix in (("", "warning", "immich_triton_key"), ("k", "error", "--triton-key")):
        (locked,) = (one for one in diagnosis.triton(answers.url, table, key) if "key" in one.text)
        assert (locked.level, fix in locked.fix) == (level, True)


# The gateway


def test_a_gateway_and_what_is_behind_it(answers: Answers) -> None:
    answers.paths = {"/ping": (200, {}), "/": (200, {})}
    assert levels(diagnosis.gateway(answers.url)) == ["ok", "ok"]
    answers.paths = {"/ping": (503, {"detail": "ocr: away"}), "/": (502, ["no detail"])}
    unready, behind = diagnosis.gateway(answers.url)
    assert (unready.level, unready.text) == ("error", f"the gateway at {answers.url} is not ready: ocr: away")
    assert (behind.level, behind.text[-10:]) == ("warning", "status 502")


def test_a_token_that_is_missing(answers: Answers) -> None:
    for url, what in ((answers.url, "a token"), (f"{answers.url}/other", "another token than this")):
        (finding,) = diagnosis.gateway(url)
        assert f"wants {what} (immich_path_token)" in finding.text
        assert "other" not in finding.text.replace("another", "")
        assert f"--url {answers.url}/TOKEN" in finding.fix


def test_who_answers(answers: Answers) -> None:
    answers.paths = {"/ping": (200, {})}
    assert diagnosis.who_answers(f"{answers.url}/ping") == "gateway"
    assert diagnosis.who_answers(f"{answers.url}/elsewhere") == "locked"
    answers.gives_id_back = False
    assert diagnosis.who_answers(f"{answers.url}/ping") == "stranger"
    assert diagnosis.who_answers(f"http://127.0.0.1:{free_ports(1)[0]}/ping") == "stranger"
    (finding,) = diagnosis.gateway(answers.url)
    assert finding.text == f"what answers at {answers.url} is not the gateway"


# Immich's list of addresses


def test_the_gateway_must_be_the_only_one(answers: Answers) -> None:
    answers.paths = {"/ping": (200, {})}
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    ours = answers.url

    def found(*urls: str, clip: bool = True) -> list[Finding]:
        return list(diagnosis.addresses(urls, "2.7.5", routes_clip=clip))

    assert found(ours) == [Finding("ok", f"Immich asks the gateway at {ours}")]
    assert levels(found(ours, nobody)) == ["ok", "error"]
    assert "whose vectors would mix with ours" in found(ours, nobody)[1].text
    assert "and Triton is not used" in found(ours, nobody, clip=False)[1].text
    assert levels(found(nobody)) == ["warning"]
    assert levels(found(nobody, f"{nobody}/x")) == ["error"]
    assert found() == [Finding("error", "Immich lists no machine-learning URL", found()[0].fix)]


@pytest.mark.parametrize(("version", "level"), [("3.0.0", "ok"), ("2.7.5", "error")])
def test_a_token_in_the_address_takes_an_immich_that_keeps_it(answers: Answers, version: str, level: Level) -> None:
    answers.paths = {"/secret/ping": (200, {})}
    (finding,) = diagnosis.addresses((f"{answers.url}/secret/",), version, routes_clip=True)
    assert finding.level == level
    assert "secret" not in finding.text
