"""Two gateways behind one balancer keep one promise: a CLIP name that was answered stays with its weights.

Either they share a state folder, or each has a ledger that it can only read.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder
from stand_in_triton import CLIP_NAME, StandInTriton, stand_in_triton, write_routes

from immich_triton.immich.ml_client import Answer, entries_for, predict
from immich_triton.ml.ledger import Ledger

WEIGHTS: Final = {"ours": "b" * 64, "theirs": "c" * 64}


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@contextmanager
def gateways(
    directory: Path, triton: StandInTriton, upstream: Recorder, *weights: str, program: str = "mitmdump"
) -> Iterator[list[GatewayProcess]]:
    """Run a gateway for each of *weights*, which its route names; without a name there is no route for CLIP."""
    with ExitStack() as stack:
        started = []
        for number, own in enumerate(weights):
            folder = directory / f"gateway-{number}"
            models = write_routes(folder / "models")
            route = models / "clip/route.toml"
            if own:
                route.write_text(route.read_text().replace(WEIGHTS["ours"], WEIGHTS[own]))
            else:
                route.unlink()
            started.append(
                stack.enter_context(
                    running_gateway(
                        folder,
                        models=models,
                        triton_url=triton.url,
                        upstream=upstream.url,
                        program=program,
                        immich_state_dir=directory / "state",
                    )
                )
            )
        yield started


def ask(gateway: GatewayProcess) -> Answer:
    return predict(gateway.url, entries_for("clip", CLIP_NAME), image=b"image", timeout=60)


def test_what_one_answered_no_other_answers_with_other_weights(
    tmp_path: Path, triton: StandInTriton, upstream: Recorder
) -> None:
    with gateways(tmp_path, triton, upstream, "ours", "ours", "theirs", "") as (first, same, other, without):
        assert ask(first).status == 200
        assert ask(same).status == 200
        for gateway, why in ((other, "now has other weights"), (without, "has no route")):
            answer = ask(gateway)
            assert (answer.status, why in str(answer.body)) == (503, True)
    assert upstream.predictions() == []


def test_of_two_that_answer_first_at_the_same_moment_one_is_right(
    tmp_path: Path, triton: StandInTriton, upstream: Recorder
) -> None:
    with gateways(tmp_path, triton, upstream, "ours", "theirs") as both, ThreadPoolExecutor(8) as pool:
        answers = {name: [pool.submit(ask, one) for _ in range(4)] for name, one in zip(WEIGHTS, both, strict=True)}
        statuses = {name: {one.result().status for one in mine} for name, mine in answers.items()}
    owner = {digest: name for name, digest in WEIGHTS.items()}[Ledger(tmp_path / "state").owned()[CLIP_NAME]]
    (loser,) = WEIGHTS.keys() - {owner}
    assert statuses == {owner: {200}, loser: {503}}
    assert upstream.predictions() == []


@pytest.fixture
def read_only(tmp_path: Path) -> str:
    """Give a mitmdump for which the state folder is mounted read-only, as a ConfigMap is."""
    namespace = ["unshare", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("a read-only mount needs a mount namespace, which this machine does not allow")
    (tmp_path / "state").mkdir()
    program = tmp_path / "mitmdump"
    program.write_text(
        f"#!/bin/sh\nexec {' '.join(namespace)} sh -c 'mount --bind {tmp_path}/state {tmp_path}/state && "
        f'mount -o remount,bind,ro {tmp_path}/state && exec {Path(sys.executable).parent}/mitmdump "$@"\' sh "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


def test_a_ledger_that_can_only_be_read_admits_what_stands_in_it_and_nothing_else(
    tmp_path: Path, triton: StandInTriton, upstream: Recorder, read_only: str
) -> None:
    with gateways(tmp_path, triton, upstream, "ours", "theirs", "", program=read_only) as (ours, theirs, without):
        # What is not in it is owned by nobody yet, and could be answered otherwise elsewhere.
        answer = ask(ours)
        assert (answer.status, "cannot write" in str(answer.body)) == (503, True)
        assert Ledger(tmp_path / "state").own(CLIP_NAME, WEIGHTS["ours"])
        assert ask(ours).status == 200
        assert [ask(theirs).status, ask(without).status] == [503, 503]
        assert predict(ours.url, entries_for("ocr"), image=b"image").status == 200
    assert upstream.predictions() == []
