from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bench
import onnx
import pytest
from onnx import TensorProto, helper
from recorder import recording_upstream
from triton.counters import settled

from benchmarks import clip, cpu_time, growth, overhead, samples, throughput
from benchmarks.load import Clients, Run, Summary, ratio, take_turns
from benchmarks.network import in_onnxruntime
from benchmarks.samples import Sample
from benchmarks.service import Gateway
from benchmarks.targets import BenchError, Service
from harness.program import eventually
from immich_triton.server import processes

MEGABYTE = 1 << 20


class Bell:
    """A contender of the simplest kind: counts who rings at the same time."""

    def __init__(self, name: str, log: list[str] | None = None, *, cracked_at: int | None = None) -> None:
        self.name = name
        self.log = [] if log is None else log
        self.asked: list[str] = []
        self.ringing = self.most = 0
        self._cracked_at = cracked_at

    async def ask(self, sample: Sample) -> None:
        self.asked.append(sample.name)
        self.ringing += 1
        self.most = max(self.most, self.ringing)
        await asyncio.sleep(0)
        self.ringing -= 1
        if len(self.asked) == self._cracked_at:
            raise BenchError("cracked")

    async def run(self, samples: Sequence[Sample], concurrency: int) -> Run:
        self.log.append(self.name)
        return Run(1.0, [1.0] * len(samples))

    async def close(self) -> None:
        pass


TEN = [Sample(str(number)) for number in range(10)]


# Load


@pytest.mark.parametrize("concurrency", [1, 3, 8])
async def test_so_many_clients_answer_every_sample_once(concurrency: int) -> None:
    bell = Bell("a")
    run = await Clients(bell).run(TEN, concurrency)
    assert sorted(bell.asked) == sorted(sample.name for sample in TEN)
    assert bell.most == concurrency
    assert len(run.latencies) == 10


async def test_a_failed_request_ends_the_run() -> None:
    with pytest.raises(BenchError, match="cracked"):
        await Clients(Bell("a", cracked_at=3)).run(TEN, 2)


async def test_contenders_take_turns_and_change_the_order() -> None:
    log: list[str] = []
    summaries = await take_turns([Bell("a", log), Bell("b", log)], TEN, 1, 3)
    assert "".join(log) == "abbaab"
    assert [len(summary.runs) for summary in summaries.values()] == [3, 3]


def test_the_rate_is_the_median_of_the_runs() -> None:
    summary = Summary([Run(1.0, [0.1] * 10), Run(10.0, [1.0] * 10), Run(2.0, [0.2] * 10)])
    assert summary.rate == 5.0
    assert summary.percentile(50) == pytest.approx(0.2)
    assert summary.as_dict()["requests"] == 30


def test_a_ratio_compares_round_by_round() -> None:
    # The machine slowed down tenfold for both after the first round: ours stays twice as fast.
    ours = Summary([Run(1.0, [1.0]), Run(10.0, [1.0]), Run(10.0, [1.0])])
    theirs = Summary([Run(2.0, [1.0]), Run(20.0, [1.0]), Run(20.0, [1.0])])
    assert ratio(ours, theirs) == 2.0


async def test_overhead_pairs_ask_both_the_same_in_turn() -> None:
    first, second = Bell("a"), Bell("b")
    through, alone = await overhead.pairs(first, second, TEN)
    assert len(through) == len(alone) == 10
    assert first.asked == second.asked
    assert first.asked[-10:] == [sample.name for sample in TEN]


# What is sent


def test_images_of_different_sizes() -> None:
    made = samples.odd_sizes(30, seed=3)
    assert len({sample.name for sample in made}) == 30
    assert made == samples.odd_sizes(30, seed=3)


def test_queries_are_new_with_another_seed() -> None:
    first, second = samples.queries(50, seed=1), samples.queries(50, seed=2)
    assert len({sample.text for sample in (*first, *second)}) == 100


def test_the_weightless_image_has_a_previews_size_on_the_wire() -> None:
    image = samples.weightless(300).image
    assert image is not None
    assert 300_000 <= len(image) < 302_000


# Memory


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdin
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


def test_the_process_behind_a_port_is_found() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert processes.listener(port) is None
        server.listen()
        assert processes.listener(port) == os.getpid()


def test_memory_counts_children_and_what_they_take() -> None:
    held = 96 * MEGABYTE
    code = f"import sys; block = bytearray({held}); print('ready', flush=True); sys.stdin.read()"
    before = processes.memory(os.getpid())
    with child(code) as process:
        assert process.pid in processes.tree(os.getpid())
        after = processes.memory(os.getpid())
        assert after.processes == before.processes + 1
        assert held < after.pss - before.pss < held + 32 * MEGABYTE
    with pytest.raises(ProcessLookupError):
        processes.memory(process.pid)


# Networks and services


def save_network(path: Path, element: int) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["in"], ["out"])],
        "identity",
        [helper.make_tensor_value_info("in", element, ["batch", 3, "open"])],
        [helper.make_tensor_value_info("out", element, ["batch", 3, "open"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8])
async def test_a_network_alone_counts_items_and_not_batches(tmp_path: Path, element: int) -> None:
    save_network(tmp_path / "model.onnx", element)
    run = await in_onnxruntime("alone", tmp_path / "model.onnx", threads=1).run(TEN, 4)
    assert len(run.latencies) == 12
    assert run.rate == pytest.approx(12 / run.seconds)


async def test_a_service_that_answers_an_error_ends_the_benchmark() -> None:
    with recording_upstream() as upstream:
        upstream.answer = (500, b"Internal Server Error")
        service = Service("stock", upstream.url, "ocr")
        try:
            with pytest.raises(BenchError, match="stock: 500 for page: b'Internal Server Error'"):
                await service.ask(Sample("page", image=b"image"))
        finally:
            await service.close()


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no images"):
        bench.samples(bench.parser().parse_args(["--images", str(tmp_path)]))


def test_nobody_at_the_address_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--url", "http://127.0.0.1:9"]) == 1
    assert "immich-triton run" in capsys.readouterr().err


# The whole command, over the real gateway and the real Triton


@pytest.fixture(scope="module")
def gateway(ocr_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    options = bench.parser().parse_args(["--models", str(ocr_models)])
    with bench.running(options) as started:
        yield started


def at(gateway: Gateway) -> list[str]:
    places = {
        "--url": gateway.url,
        "--triton": gateway.triton,
        "--metrics": gateway.metrics,
        "--models": gateway.models,
    }
    return [str(word) for pair in places.items() for word in pair]


def test_ocr_throughput_memory_and_overhead(gateway: Gateway, tmp_path: Path) -> None:
    # The gateway against itself, so that there is somebody to compare with.
    images = [str(samples.IMAGES / name) for name in ("tiny_16px.png", "cat_no_text_no_face.jpg")]
    few = ["--images", *images, "--rounds", "2"]
    load = ["--concurrency", "1", "2", "--overhead", "10", "--processes", "40", "--against", f"twin={gateway.url}"]
    assert bench.main([*at(gateway), *few, *load, "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["environment"]["triton"].startswith("2.")
    for concurrency in (1, 2):
        ours, twin = (figures["throughput"][str(concurrency)][name] for name in ("gateway", "twin"))
        assert ours["requests"] == twin["requests"] == 2 * throughput.REQUESTS_PER_CLIENT * concurrency
        # Both are the same gateway: a benchmark that sees a large difference measures something else.
        assert 0.1 < twin["ours_is_faster_by"] < 10
        assert 0 < ours["p50"] <= ours["p99"]
        # Triton works for both, and counts for the one of which that is known.
        assert ours["cpu"] > twin["cpu"] >= 0
    assert figures["memory"]["Triton"]["processes"] > 1
    assert figures["memory"]["gateway"]["rss"] > 30 * MEGABYTE
    weightless = figures["overhead"]["16x16 pixels in 300 kB"]
    # Not that the gateway costs something: ten pairs on a busy machine do not show it.
    assert weightless["pairs"] == 10
    assert weightless["triton_p50_ms"] > 0
    assert weightless["gateway_p50_ms"] > 0
    # What takes less than a tick of the clock in 40 requests is left out.
    assert (
        {"mitmdump", "ocr_det"}
        <= figures["processes"].keys()
        <= {
            *("mitmdump", "tritonserver", "decoding", "ocr", "ocr_det", "ocr_rec", "ended"),
        }
    )
    assert figures["processes"]["mitmdump"]["processes"] == 1
    assert 0 < figures["processes"]["mitmdump"]["cpu_ms"] < 1000


def test_cpu_time_is_that_of_the_processes_that_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = f"http://127.0.0.1:{listening.getsockname()[1]}"
        clock = cpu_time.of([here, here])
        assert clock
        before, began = clock(), time.process_time()
        while time.process_time() < began + 0.2:
            pass
        assert clock() - before > 0.1
        assert cpu_time.of([here, "http://stock.example:3003"]) is None
    assert cpu_time.of([here]) is None


def test_growth_of_memory(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "TRITON_WARM_UP", 2)
    file = tmp_path / "figures.json"
    assert bench.main([*at(gateway), "--memory", "30", "--sizes", "4", "--warm-up", "10", "--json", str(file)]) == 0
    figures = json.loads(file.read_text(encoding="utf-8"))["growth"]
    assert figures["gateway"]["requests"] == 30
    assert figures["gateway"]["warm_up"] == 10
    assert figures["triton"]["requests"] == 4
    assert len(figures["triton"]["pss"]) == 5


async def test_batches_are_read_from_tritons_counters(gateway: Gateway) -> None:
    before = settled(lambda: clip.counters(gateway.metrics, "ocr"))
    service = Service("gateway", gateway.url, "ocr")
    try:
        await Clients(service).run([samples.weightless(1)] * 6, 2)
    finally:
        await service.close()

    def grown() -> list[float]:
        return [b - a for a, b in zip(before, clip.counters(gateway.metrics, "ocr"), strict=True)]

    # Triton counts after it has answered.
    assert eventually(lambda: grown()[0] == 6 and grown()[1] > 0)
    assert grown()[1] <= 6
    with pytest.raises(BenchError, match="no nv_inference_count of nothing"):
        clip.counters(gateway.metrics, "nothing")


def test_the_default_images_are_the_projects_own() -> None:
    chosen = bench.samples(bench.parser().parse_args(["--task", "faces"]))
    assert {sample.name for sample in chosen} == {path.name for path in samples.IMAGES.iterdir()}
    assert bench.samples(bench.parser().parse_args(["--task", "faces", "--limit", "2"])) == chosen[:2]


def test_a_key_is_no_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--triton-key", "open sesame"]) == 1
    complaint = capsys.readouterr().err
    assert "--triton-key must be file:PATH or env:NAME" in complaint
    assert "open sesame" not in complaint
