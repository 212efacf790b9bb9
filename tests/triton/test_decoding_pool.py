"""The processes that decode, for real: same pixels, bounds that end an image and nothing else, nothing left behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import poison
import pytest
from PIL import Image
from triton.decoders import decoders

from harness.program import eventually
from immich_pipelines.clip_transform import image_transform, normalise
from immich_pipelines.decode import decode_rgb, open_rgb
from immich_pipelines.decoding import crew, messages, server, worker
from immich_pipelines.decoding.client import DecodingPool, PoolError
from immich_pipelines.decoding.crew import Crew, Task, choose
from immich_pipelines.decoding.findings import Scan
from immich_pipelines.decoding.messages import Job
from immich_pipelines.decoding.scan import FORMATS, scan
from immich_pipelines.decoding.sheets import Sheet
from immich_pipelines.errors import BadInput
from immich_triton.core.paths import PROJECT
from immich_triton.server import processes

RANDOM = np.random.default_rng(5)


PICTURE = PROJECT / "tests/data/images/mixed_sign.webp"


def picture(mode: str = "RGB", size: tuple[int, int] = (61, 47)) -> Image.Image:
    colours = Image.fromarray(RANDOM.integers(0, 255, (4, 5, 4), dtype=np.uint8), "RGBA")
    if mode == "I;16":
        return Image.fromarray(RANDOM.integers(0, 65535, size[::-1], dtype=np.uint16))
    return colours.resize(size, Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def slow() -> bytes:
    """A JPEG that every bound lets pass, and that takes seconds to decode."""
    return poison.jpeg_scans(4000, 90)


@pytest.fixture
def triton() -> Iterator[subprocess.Popen[bytes]]:
    """Stand in for the server with a process that ends when it is told to."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def pool(triton: subprocess.Popen[bytes]) -> Iterator[DecodingPool]:
    with contextlib.closing(DecodingPool(2, triton=triton.pid)) as pool:
        yield pool


MODES = {
    "JPEG": ["RGB", "L", "1", "CMYK"],
    "PNG": ["RGB", "L", "P", "1", "LA", "RGBA", "I;16"],
    "WEBP": ["RGB", "L", "P", "RGBA"],
    "GIF": ["RGB", "L", "P", "1", "RGBA"],
    "BMP": ["RGB", "L", "P", "1", "RGBA"],
    "TIFF": ["RGB", "L", "P", "1", "LA", "RGBA", "CMYK", "I;16"],
    "AVIF": ["RGB", "L", "RGBA"],
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind in FORMATS for mode in MODES[kind]])
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_pixels_are_those_of_this_process(kind: str, mode: str, shared: DecodingPool) -> None:
    data = saved(picture(mode), kind)
    pixels = shared.decode(data)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, decode_rgb(data))
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.fixture(scope="module")
def shared() -> Iterator[DecodingPool]:
    with contextlib.closing(DecodingPool(2, triton=os.getpid())) as pool:
        yield pool


@pytest.mark.parametrize("size", [(1440, 1920), (1, 1), (3000, 2)])
def test_clip_gets_the_tensor_of_the_whole_image(size: tuple[int, int], shared: DecodingPool) -> None:
    data = saved(picture(size=size), "JPEG")
    found = shared.squeeze(data, 224)
    assert (found.width, found.height) == size
    np.testing.assert_array_equal(normalise(found.pixels), image_transform(open_rgb(data), 224))


def test_what_is_no_whole_image_is_bad_input(shared: DecodingPool) -> None:
    for data in (b"", b"a text", saved(picture(), "PNG")[:-40], saved(picture(), "JPEG")[:300]):
        with pytest.raises(BadInput, match="the "):
            shared.decode(data)
    with pytest.raises(BadInput, match="61x47 pixels, more than the allowed 99"):
        shared.decode(saved(picture(), "PNG"), max_pixels=99)


def test_what_lets_a_network_keep_its_buffers_is_not_for_decoders(
    triton: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "33554432")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "67108864")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    with contextlib.closing(DecodingPool(2, triton=triton.pid)) as pool:
        pool.start()
        started = decoders(triton.pid)
        assert started
        for pid in started:
            given = (processes.PROC / str(pid) / "environ").read_bytes()
            assert b"MALLOC_ARENA_MAX=2" in given
            assert b"_THRESHOLD_=" not in given


def test_what_an_image_took_is_given_back_when_no_other_comes(triton: subprocess.Popen[bytes]) -> None:
    def held() -> int:
        return sum(sizes[2] for pid in decoders(triton.pid) if (sizes := processes.rollup(pid)))

    with contextlib.closing(DecodingPool(2, triton=triton.pid)) as pool:
        pool.decode(saved(picture(), "JPEG"))
        fresh = held()
        pool.decode(PICTURE.read_bytes())
        assert eventually(lambda: held() < fresh + (4 << 20), 30), "this one has 8 MB of pixels"


def test_the_memory_of_an_image_is_kept_for_the_next_one_and_given_back_when_none_comes(
    triton: subprocess.Popen[bytes],
) -> None:
    data = saved(picture(size=(2400, 2400)), "JPEG")  # 22 MiB as Pillow holds it
    with contextlib.closing(DecodingPool(2, triton=triton.pid)) as pool:
        for _ in range(8):
            pool.decode(data)
        workers = decoders(triton.pid)[1:]
        before = [faults(pid) for pid in workers]
        for _ in range(8):
            pool.decode(data)
        # New pages for eight images, of 4 KiB, would be 45,000, and for a copy of each 90,000.
        assert sum(faults(pid) for pid in workers) - sum(before) < 10_000
        assert eventually(lambda: max(map(private_kib, workers)) < 12_000)


def test_pixels_come_in_the_memory_of_an_image_that_nobody_needs_any_more(shared: DecodingPool) -> None:
    def place(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
        return int(pixels.__array_interface__["data"][0])

    one, other = (saved(picture(size=(300, 200)), "PNG") for _ in range(2))
    first = shared.decode(one)
    second = shared.decode(other)
    np.testing.assert_array_equal(first, decode_rgb(one))
    before = place(first)
    del first
    third = shared.decode(one)
    assert place(third) == before != place(second)
    np.testing.assert_array_equal(third, decode_rgb(one))
    np.testing.assert_array_equal(second, decode_rgb(other))


def test_the_memory_of_an_image_that_failed_serves_no_other(shared: DecodingPool) -> None:
    shared._shelf.clear()
    sheet = Sheet()
    shared._shelf.put(sheet)
    with pytest.raises(BadInput):
        shared.decode(saved(picture(), "PNG")[:-400])
    assert shared._shelf.take() is not sheet


def faults(pid: int) -> int:
    """Return how many pages a process was given so far without a disk."""
    return int((processes.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[7])


def private_kib(pid: int) -> int:
    lines = (processes.PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def test_an_image_that_outruns_its_time_takes_nothing_along(triton: subprocess.Popen[bytes]) -> None:
    with contextlib.closing(DecodingPool(2, seconds=0.5, triton=triton.pid)) as pool:
        pool.start()
        before = decoders(triton.pid)
        with pytest.raises(BadInput, match=r"takes more than the 0\.5 s of CPU time"):
            pool.decode(slow())
        assert pool.decode(saved(picture(), "PNG")).shape == (47, 61, 3)
        after = decoders(triton.pid)
    assert after[0] == before[0]
    assert len(set(after) - set(before)) == 1  # one was replaced


def test_an_image_that_takes_more_memory_than_its_size_allows_is_refused(shared: DecodingPool) -> None:
    data = saved(Image.new("RGB", (9000, 9000)), "PNG")
    modest = Job(Scan("PNG", 8, 8), max_pixels=10**8, seconds=60)
    shared.start()
    answer = shared._ask(modest, data, Sheet().descriptor)
    assert answer["kind"] == messages.BAD_INPUT
    assert "takes more than the 96 MiB" in answer["error"]


def test_what_an_image_may_take_grows_with_its_size() -> None:
    small, large = (Job(Scan("JPEG", side, side), 10**9, 10.0) for side in (500, 14_000))
    assert worker.cpu_seconds(small) < 2.1
    assert worker.cpu_seconds(large) == 10
    assert worker.memory_bytes(small.scan, 0) < 120 << 20


def test_a_process_that_crashes_is_the_images_fault_and_one_that_is_killed_is_not(
    pool: DecodingPool, triton: subprocess.Popen[bytes]
) -> None:
    for number, outcome in ((signal.SIGSEGV, BadInput), (signal.SIGKILL, None)):
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            pool.start()
            known = decoders(triton.pid)
            at_work = watch(known[1:])
            answer = thread.submit(pool.squeeze, poison.jpeg_scans(3000, 60), 32)
            os.kill(at_work(), number)
            if outcome:
                with pytest.raises(outcome, match="SIGSEGV"):
                    answer.result()
            else:
                assert answer.result().width == 3000  # another one did it


def watch(pids: list[int]) -> Callable[[], int]:
    """Look at *pids*, which have nothing to do: what is returned waits until one of them is at work, and returns it.

    By the CPU time since now, however little of it a busy machine gives at a time.
    """
    before = {pid: ticks(pid) for pid in pids}
    found: list[int] = []

    def look() -> bool:
        found.extend(pid for pid in pids if ticks(pid) > before[pid] + 2)
        return bool(found)

    def wait() -> int:
        assert eventually(look, 120)
        return found[0]

    return wait


def ticks(pid: int) -> int:
    """Return the CPU time that a process has taken, in hundredths of a second; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return int((processes.PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[11])
    return 0


def test_a_pool_that_is_killed_is_started_again(pool: DecodingPool, triton: subprocess.Popen[bytes]) -> None:
    data = saved(picture(), "PNG")
    pool.decode(data)
    before = decoders(triton.pid)
    os.kill(before[0], signal.SIGKILL)
    np.testing.assert_array_equal(pool.decode(data), decode_rgb(data))
    assert eventually(lambda: not set(before) & set(decoders(triton.pid)))  # those below it ended with it


def test_pipelines_share_one_pool_of_the_size_that_most_is_wished(triton: subprocess.Popen[bytes]) -> None:
    pools = [DecodingPool(size, triton=triton.pid) for size in (2, 3, 2, 2)]
    with concurrent.futures.ThreadPoolExecutor(len(pools)) as threads:
        list(threads.map(DecodingPool.start, pools))
    assert eventually(lambda: len(decoders(triton.pid)) == 1 + 3)
    for pool in pools:
        pool.close()


def test_it_ends_with_triton(pool: DecodingPool, triton: subprocess.Popen[bytes]) -> None:
    pool.start()
    assert len(decoders(triton.pid)) == 3
    triton.kill()
    triton.wait()
    assert eventually(lambda: not decoders(triton.pid))


FOUND = """
import sys
from immich_pipelines.decoding.client import DecodingPool

pool = DecodingPool(2, triton=int(sys.argv[1]))
pool.start()
print("started", flush=True)
input()
"""


@pytest.mark.parametrize("nice", [0, 7, 10])
def test_it_belongs_to_nobody_and_is_the_same_whoever_started_it(nice: int, triton: subprocess.Popen[bytes]) -> None:
    command = ["nice", "-n", str(nice), sys.executable, "-c", FOUND, str(triton.pid)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as founder:
        assert founder.stdout
        assert founder.stdout.readline() == b"started\n"
        before = decoders(triton.pid)
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in before} == {server.NICENESS}
        assert {processes.session(pid) for pid in before} == {os.getsid(0)}  # so that it ends with Triton's
        with contextlib.closing(DecodingPool(2, triton=triton.pid)) as pool:
            pool.start()
            processes.kill_tree(founder.pid)  # as the supervisor does with a model's process that hangs
            founder.wait()
            assert pool.decode(saved(picture(), "PNG")).shape == (47, 61, 3)
            assert decoders(triton.pid)[0] == before[0]
            triton.kill()
            triton.wait()
            assert eventually(lambda: not decoders(triton.pid))


def test_a_pool_that_cannot_start_is_tried_once(
    tmp_path: Path, triton: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = tmp_path / "launches"
    (tmp_path / "PIL").mkdir()
    broken = f"print('!', file=open({str(launches)!r}, 'a'))\nimport no_such_library\n"
    (tmp_path / "PIL/__init__.py").write_text(broken)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(PoolError, match="do not start: exit code 1"):
        DecodingPool(2, triton=triton.pid).start()
    assert launches.read_text() == "!\n"


def test_nothing_is_decoded_for_a_client_that_has_gone() -> None:
    with contextlib.ExitStack() as stack:

        def pair() -> list[socket.socket]:
            return [stack.enter_context(one) for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]

        def task(width: int) -> Task:
            image, pixels = map(messages.anonymous_file, ("image", "pixels"))
            return Task(Job(Scan("JPEG", width, 1), 10**9, 10.0), image, pixels, pair()[0])

        members = Crew(stack.enter_context(selectors.DefaultSelector()))
        link, process = pair()
        members._size, members._workers = 1, [crew._Worker(0, link)]
        gone, patient = task(1), task(2)
        gone.client, other_end = pair()
        other_end.close()
        members.add(gone)
        members.add(patient)
        message, descriptors = messages.receive(process)
        assert message
        assert Job.of(message) == patient.job
        for descriptor in (*descriptors, patient.image, patient.pixels):
            os.close(descriptor)
        assert gone.client.fileno() == -1
        for descriptor in (gone.image, gone.pixels):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)


def test_an_ordinary_photo_does_not_wait_for_heavy_ones(triton: subprocess.Popen[bytes]) -> None:
    with contextlib.closing(DecodingPool(2, triton=triton.pid)) as pool:
        heavy, ended = slow(), threading.Event()
        assert scan(heavy).heavy
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            waiting = [threads.submit(pool.squeeze, heavy, 32) for _ in range(2)]  # one for each process
            waiting[0].add_done_callback(lambda _: ended.set())
            for _ in range(3):
                assert pool.decode(saved(picture(), "JPEG")).shape == (47, 61, 3)
            assert not ended.is_set()
            while not all(one.done() for one in waiting):  # they need not be finished
                time.sleep(0.05)
                for pid in decoders(triton.pid)[1:]:
                    if ticks(pid) > 10:  # far more than an ordinary photo takes
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGSEGV)


def test_whose_turn_it_is() -> None:
    def task(heavy: bool) -> Task:
        side = 9000 if heavy else 90
        return Task(Job(Scan("JPEG", side, side), 10**9, 10.0), -1, -1, None)  # type: ignore[arg-type]

    first, second, third = task(True), task(False), task(True)
    waiting = [first, second, third]
    assert choose(waiting, heavy_at_work=0, size=2) is first
    assert choose(waiting, heavy_at_work=1, size=2) is second
    assert choose([third], heavy_at_work=1, size=2) is None
    assert choose(waiting, heavy_at_work=1, size=4) is first
    assert choose(waiting, heavy_at_work=2, size=5) is second
    assert crew.SMALLEST >= 2


@pytest.mark.parametrize(
    ("name", "value"), [("decoders", "many"), ("decoders", "65"), ("decode_seconds", "0"), ("decode_seconds", "nan")]
)
def test_a_wrong_parameter_says_so(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number from"):
        DecodingPool.of({"parameters": {name: {"string_value": value}}})


def test_no_interpreter_is_the_servers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PoolError, match="no python3 on the PATH"):
        DecodingPool(2, triton=os.getpid() + 10_000_000).start()
