"""``immich-triton triton`` with the real server of the wheel."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.http
from embedded_triton import StartTriton, TritonServer, launch
from small_models import BROKEN, ECHO, FORGETFUL, PATIENT, write_model, write_ocr_route

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.ml.route_file import Route, write_route
from immich_triton.server.triton_install import site_packages
from immich_triton.server.triton_process import TritonProcess
from immich_triton.server.triton_settings import TritonSettings
from immich_triton.triton.pipelines import Pipeline

pytestmark = pytest.mark.xdist_group("supervisor")

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
LOADED = "triton: echo loaded\n"
"""What is printed when it is loaded beside a running server; at the start there stands how long that took."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_model(models, "echo")
    return models


@pytest.fixture(scope="module")
def server(triton_server: StartTriton, models: Path) -> Iterator[TritonServer]:
    with triton_server(models) as server:
        yield server


def echoes(server: TritonServer) -> bool:
    client = tritonclient.http.InferenceServerClient(server.url.removeprefix("http://"))
    value = np.arange(3, dtype=np.float32)[None]
    tensor = tritonclient.http.InferInput("IN", value.shape, "FP32")
    tensor.set_data_from_numpy(value)
    try:
        return bool((client.infer("echo", [tensor]).as_numpy("OUT") == value).all())
    except (OSError, tritonclient.utils.InferenceServerException):
        return False
    finally:
        client.close()


def children(pid: int) -> set[int]:
    return {
        int(child) for listing in Path(f"/proc/{pid}/task").glob("*/children") for child in listing.read_text().split()
    }


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # a zombie has none
    except OSError:
        return False


def shared_memory(server: TritonServer) -> list[Path]:
    port = server.url.rsplit(":", 1)[1]
    return list(SHARED_MEMORY.glob(f"immich_triton_{port}_*"))


def kill_the_stub_of(server: TritonServer) -> int:
    """Kill the process of the only model, as the kernel does when memory is short, and return its id."""
    (stub,) = children(server.pid)
    os.kill(stub, signal.SIGKILL)
    return stub


def listeners(port: int) -> set[str]:
    """Return the hexadecimal addresses on which somebody listens on *port*."""
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {
        address for address, number in (row[1].split(":") for row in rows if row[3] == "0A") if int(number, 16) == port
    }


def test_answers_a_request(server: TritonServer) -> None:
    assert echoes(server)


def test_listens_on_loopback_only(server: TritonServer) -> None:
    for url in (server.url, server.metrics_url):
        assert listeners(int(url.rsplit(":", 1)[1])) == {"0100007F"}


def test_serves_metrics_of_the_model(server: TritonServer) -> None:
    assert 'nv_inference_request_success{model="echo"' in requests.get(f"{server.metrics_url}/metrics", timeout=5).text


def test_leads_its_own_session_and_names_its_port(server: TritonServer) -> None:
    assert os.getsid(server.pid) == server.pid
    arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode().split("\0")
    assert arguments[arguments.index("--http-port") + 1] == server.url.rsplit(":", 1)[1]


def test_nothing_is_written_into_the_wheel(server: TritonServer) -> None:
    wheel = site_packages() / "pytriton/tritonserver"
    assert max(path.stat().st_ctime for path in wheel.rglob("*")) < (server.run_dir / "backends").stat().st_ctime


def test_models_can_be_unloaded_and_loaded_by_request(server: TritonServer) -> None:
    for action in ("unload", "load"):
        assert requests.post(f"{server.url}/v2/repository/models/echo/{action}", timeout=30).ok
    assert echoes(server)


def test_a_killed_server_is_started_again(server: TritonServer) -> None:
    before = server.pid
    server.kill()
    assert eventually(lambda: server.started_again(before))
    assert echoes(server)
    assert "Triton was killed by SIGKILL" in server.console


def test_a_model_whose_process_was_killed_is_loaded_again(server: TritonServer) -> None:
    loads = server.console.count(LOADED)
    stub = kill_the_stub_of(server)
    assert eventually(lambda: server.console.count(LOADED) > loads)
    assert "a process of model echo died" in server.console
    assert children(server.pid) != {stub}
    assert echoes(server)


def test_a_model_that_cannot_be_loaded_again_at_once_is_tried_until_it_can(
    tmp_path: Path, triton_server: StartTriton
) -> None:
    obstacle = write_model(tmp_path, "echo", code=FORGETFUL) / "no memory"
    with triton_server(tmp_path) as server:
        obstacle.touch()
        kill_the_stub_of(server)
        assert eventually(lambda: "model echo could not be loaded again; next attempt in 5 s" in server.console)
        assert not echoes(server)
        obstacle.unlink()
        assert eventually(lambda: echoes(server))


def test_a_folder_with_an_odd_name_does_not_end_the_care_for_others(tmp_path: Path, triton_server: StartTriton) -> None:
    write_model(tmp_path, "echo")
    with triton_server(tmp_path) as server:
        write_model(tmp_path, "echo 副本")
        assert eventually(lambda: "the files of model echo 副本 changed" in server.console)
        kill_the_stub_of(server)
        assert eventually(lambda: LOADED in server.console)
        assert echoes(server)


def test_a_repository_that_is_away_at_a_restart_is_waited_for(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_model(models, "echo")
    server = launch(models, tmp_path / "run")
    try:
        server.wait_until_live()
        models.rename(tmp_path / "elsewhere")
        server.kill()
        assert eventually(lambda: "Triton cannot be started: [Errno 2]" in server.console)
        (tmp_path / "elsewhere").rename(models)
        assert eventually(lambda: echoes(server))
    finally:
        server.stop()


def test_a_server_that_hangs_is_started_again(models: Path, tmp_path: Path) -> None:
    said: list[str] = []
    http_port, metrics_port = free_ports(2)
    triton = TritonProcess(
        TritonSettings(models, http_port, metrics_port, tmp_path / "run", hang_seconds=3), said.append
    )

    def follow_until(text: str) -> bool:
        def found() -> bool:
            triton.poll()
            return any(text in line for line in said)

        return eventually(found)

    try:
        triton.start()
        assert follow_until("ready in")
        first = int((tmp_path / "run/triton.pid").read_text())
        os.kill(first, signal.SIGSTOP)
        assert follow_until("Triton has not answered for 3 s")
        said.clear()
        assert follow_until("ready in")
        assert not alive(first)
    finally:
        triton.stop()


def test_models_that_appear_change_and_vanish_are_followed(tmp_path: Path, triton_server: StartTriton) -> None:
    write_model(tmp_path, "broken", code=BROKEN)
    with triton_server(tmp_path) as server:
        fresh = write_model(tmp_path, "echo")
        assert eventually(lambda: echoes(server))
        (tmp_path / "broken/1/model.py").write_text(ECHO)
        assert eventually(lambda: requests.get(f"{server.url}/v2/models/broken/ready", timeout=5).ok)
        shutil.rmtree(fresh)
        assert eventually(lambda: not requests.get(f"{server.url}/v2/models/echo/ready", timeout=5).ok)


def test_a_search_does_not_wait_for_the_other_models(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_model(models, "textual")
    write_model(models, "clip_text")
    gate = write_model(models, "ocr", code=PATIENT) / "go"
    write_ocr_route(models / "ocr")
    text = Pipeline("clip_text", ["visual", "textual"], ["textual"])
    write_route(models / "textual", Route("clip", ["ViT-B-32__openai"], [text], "0" * 64))
    server = launch(models, tmp_path / "run")

    def ready(model: str) -> bool:
        try:
            return requests.get(f"{server.url}/v2/models/{model}/ready", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        assert eventually(lambda: ready("textual") and ready("clip_text"), 120)
        assert not ready("ocr")
        assert "ready in" not in server.console
        gate.touch()
        server.wait_until_live()
        assert ready("ocr")
        gate.unlink()
        server.kill()
        assert eventually(lambda: "starting it again" in server.console)
        assert eventually(lambda: ready("textual") and ready("clip_text"), 120)
        assert not ready("ocr")
    finally:
        gate.touch()
        server.stop()


def test_pipelines_without_a_route_can_be_left_out(tmp_path: Path) -> None:
    write_ocr_route(write_model(tmp_path / "models", "ocr"))
    write_model(tmp_path / "models", "clip_text")
    write_model(tmp_path / "models", "mine")
    server = launch(tmp_path / "models", tmp_path / "run", more=["--only-routed"])
    try:
        server.wait_until_live()
        index = requests.post(f"{server.url}/v2/repository/index", json={"ready": True}, timeout=5).json()
        assert {model["name"] for model in index} == {"ocr", "mine"}
        write_route(
            tmp_path / "models/mine",
            Route("clip", ["ViT-B-32__openai"], [Pipeline("clip_text", ["visual", "textual"], ["mine"])], "0" * 64),
        )
        assert eventually(lambda: requests.get(f"{server.url}/v2/models/clip_text/ready", timeout=5).ok)
    finally:
        server.stop()


def test_broken_models_are_reported_in_one_line_and_the_others_served(
    tmp_path: Path, triton_server: StartTriton
) -> None:
    write_model(tmp_path, "echo")
    write_model(tmp_path, "broken", code=BROKEN)
    write_model(tmp_path, "ocr_det", backend="onnxruntime", code=None)
    (tmp_path / "notes").mkdir()
    with triton_server(tmp_path) as server:
        assert echoes(server)
        lines = server.console.splitlines()
    assert "triton: model broken could not be loaded: ValueError: the dictionary does not fit the weights" in lines
    assert (
        "triton: model ocr_det could not be loaded: model.onnx is missing; "
        f"immich-triton export ocr makes it (--models {tmp_path})" in lines
    )
    assert any(line.startswith("triton: model notes could not be loaded: there is no config.pbtxt") for line in lines)
    assert any("with 1 models, 3 could not be loaded" in line for line in lines)
    assert len(lines) < 10


def test_stopping_leaves_nothing_behind(models: Path, tmp_path: Path, server: TritonServer) -> None:
    second = launch(models, tmp_path)  # beside the first
    second.wait_until_live()
    pids = {second.pid, *children(second.pid)}
    assert echoes(second)
    assert shared_memory(second)
    assert second.stop() == 0
    assert not any(alive(pid) for pid in pids)
    assert not shared_memory(second)
    assert not (tmp_path / "triton.pid").exists()
    assert echoes(server)


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_succeeds(models: Path, tmp_path: Path) -> None:
    ports = free_ports(2)
    first = launch(models, tmp_path, ports)
    first.wait_until_live()
    pids = {first.pid, *children(first.pid)}
    stub = max(pids - {first.pid})
    os.kill(stub, signal.SIGKILL)  # it cannot remove its shared memory any more
    first.program.process.kill()
    first.program.process.wait()
    second = launch(models, tmp_path, ports)  # at once: the first server still holds the port
    try:
        second.wait_until_live()
        assert not any(alive(pid) for pid in pids)
        assert echoes(second)
    finally:
        assert second.stop() == 0
    assert not shared_memory(second)


def test_with_a_key_it_may_serve_other_machines(models: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("open=sesame,now\n")
    more = ["--host", "0.0.0.0", "--key", f"file:{tmp_path / 'key'}"]
    server = launch(models, tmp_path / "run", more=more)
    try:
        server.wait_until_live()  # health stays open
        assert listeners(int(server.url.rsplit(":", 1)[1])) == {"00000000"}
        assert not echoes(server)
        index = f"{server.url}/v2/repository/index"
        assert requests.post(index, timeout=5).status_code == 403
        assert requests.post(index, headers={"x-triton-key": "open=sesame,now"}, timeout=5).ok
        kill_the_stub_of(server)
        assert eventually(lambda: LOADED in server.console)  # the caretaker has the key
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--host", "0.0.0.0"], "it needs --key"),
        (["--key", "open sesame"], "must be file:PATH or env:NAME"),
        (["--key", "env:IMMICH_TRITON_TEST_UNSET"], "is empty"),
    ],
)
def test_an_open_door_is_refused(models: Path, tmp_path: Path, more: list[str], says: str) -> None:
    server = launch(models, tmp_path, more=more)
    assert server.program.process.wait(30) == 1
    assert says in server.console


def test_a_second_supervisor_in_the_same_folder_is_refused_and_harmless(models: Path, server: TritonServer) -> None:
    console = server.run_dir / "console.log"
    console.rename(server.run_dir / "first.log")
    try:
        second = launch(models, server.run_dir)
        assert second.program.process.wait(30) == 1
        assert "another supervisor" in second.console
    finally:
        (server.run_dir / "first.log").replace(console)
    assert server.pid
    assert echoes(server)


def test_a_port_in_use_is_named_with_the_remedy(models: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        server = launch(models, tmp_path, [port, *free_ports(1)])
        assert server.program.process.wait(30) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in server.console
    assert "--http-port" in server.console
    assert not (tmp_path / "triton.log").exists()


@pytest.mark.parametrize("exists", [True, False])
def test_no_models_names_the_script_that_makes_some(tmp_path: Path, exists: bool) -> None:
    models = tmp_path / "models"
    if exists:
        models.mkdir()
    server = launch(models, tmp_path / "run")
    assert server.program.process.wait(30) == 1
    assert f"immich-triton export ocr --models {models}" in server.console
