"""The pool in the real Triton: shared, small, deaf to poison, and gone when the server is."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import poison
import pytest
import tiny_encoders
from clip_client import ClipClient, Refused
from embedded_triton import StartTriton, TritonServer
from PIL import Image
from tiny_encoders import TinyEncoder
from triton.decoders import decoders

from harness.program import eventually
from immich_triton.server import processes

FOREIGN = re.compile("cv2|openvino|onnxruntime|rapidocr|numpy")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TinyEncoder:
    return tiny_encoders.repository(tmp_path_factory.mktemp("decoding") / "models")["see_a"]


@pytest.fixture(scope="module")
def server(triton_server: StartTriton, encoder: TinyEncoder) -> Iterator[TritonServer]:
    with triton_server(encoder.models) as server:
        yield server


def photo(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((800, 600), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def test_poison_is_the_fault_of_its_image_and_ordinary_photos_are_answered_beside_it(server: TritonServer) -> None:
    client = ClipClient(server)
    alone = [client.image_embedding(photo(seed), "see_a") for seed in range(4)]
    before = decoders(server.pid)
    stubs = children(server.pid)
    samples = {**poison.samples(), "jpeg-slow": poison.jpeg_scans(2500, 90)}

    with ThreadPoolExecutor(8) as threads:
        refused = {name: threads.submit(client.image, data, "see_a") for name, data in samples.items()}
        ordinary = [threads.submit(client.image_embedding, photo(seed % 4), "see_a") for seed in range(24)]

    for seed, answer in enumerate(ordinary):
        np.testing.assert_allclose(answer.result(), alone[seed % 4], atol=1e-6)
    for name in poison.samples():
        refusal = refused[name].result()
        assert isinstance(refusal, Refused), name
        assert refusal.bad_input, (name, refusal)
    assert decoders(server.pid)[0] == before[0]
    assert children(server.pid) == stubs  # no process of a model was lost


def test_the_pipelines_processes_share_one_pool_that_holds_pillow_alone(server: TritonServer) -> None:
    ClipClient(server).image_embedding(photo(1), "see_a")
    pool, *below = decoders(server.pid)
    assert len(below) >= 2
    assert {processes.parent(pid) for pid in below} == {pool}
    for pid in (pool, *below):
        libraries = (processes.PROC / str(pid) / "maps").read_text()
        assert "_imaging" in libraries
        assert not FOREIGN.search(libraries)
    assert pool not in children(server.pid)  # or the supervisor would take it for a process of a model


def test_a_pool_that_is_killed_costs_nobody_an_answer(server: TritonServer) -> None:
    client = ClipClient(server)
    expected = client.image_embedding(photo(2), "see_a")
    before = decoders(server.pid)
    os.kill(before[0], signal.SIGKILL)
    np.testing.assert_allclose(client.image_embedding(photo(2), "see_a"), expected, atol=1e-6)
    assert eventually(lambda: not set(before) & set(decoders(server.pid)))


def test_it_outlives_the_process_that_started_it_and_ends_with_the_server(server: TritonServer) -> None:
    client = ClipClient(server)
    expected = client.image_embedding(photo(3), "see_a")
    first = server.pid
    before = decoders(first)
    founders = stubs_of(first, "clip_image")
    assert founders
    for founder in founders:
        assert not set(before) & set(processes.tree(founder))  # the supervisor kills a hung one with all below it
        processes.kill_tree(founder)
    # The supervisor loads the pipeline again.
    assert eventually(lambda: not set(founders) & set(children(first)) and answered(client), 60)
    assert decoders(first)[0] == before[0]
    np.testing.assert_allclose(client.image_embedding(photo(3), "see_a"), expected, atol=1e-6)

    server.kill()

    assert eventually(lambda: server.started_again(first), 60)
    assert eventually(lambda: not decoders(first))
    assert eventually(lambda: answered(client), 60)
    assert len(decoders(server.pid)) >= 3


def answered(client: ClipClient) -> bool:
    try:
        return not isinstance(client.image(photo(3), "see_a"), Refused)
    except OSError:
        return False


def stubs_of(server: int, model: str) -> list[int]:
    """Return the processes of *model*; one of them has started the pool, since no other pipeline is loaded."""
    return [pid for pid in children(server) if any(f"/{model}/" in each for each in processes.arguments(pid)[1:2])]


def children(pid: int) -> list[int]:
    return sorted(child for child in processes.pids() if processes.parent(child) == pid)
