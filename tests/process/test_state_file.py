"""Files of the state: private, never half written, and never waited for without an end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateway_process import running_gateway
from recorder import recording_upstream
from stand_in_triton import stand_in_triton, write_routes

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.core import state_file
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.ml.ledger import Ledger
from immich_triton.ml.outages import Outages


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_nobody_else_can_read_the_state_or_hold_its_lock(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    Ledger(folder).own("a", "1" * 64)
    Outages(folder).mark(("ocr",))
    names = {path.name for path in folder.iterdir()}
    assert names == {"owned.json", ".owned.json.lock", "outages.json", ".outages.json.lock"}
    assert {mode(folder / name) for name in names} == {0o600}
    assert mode(folder) == 0o700


def test_a_lock_of_an_older_version_is_made_private(tmp_path: Path) -> None:
    lock = tmp_path / ".owned.json.lock"
    lock.touch()
    lock.chmod(0o644)
    Ledger(tmp_path).own("a", "1" * 64)
    assert mode(lock) == 0o600


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".file.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), state_file.exclusive(tmp_path / "file"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_who_waits_gets_the_lock_or_an_error_in_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with state_file.exclusive(path):
            held.set()
            let_go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    since = time.monotonic()
    with pytest.raises(TimeoutError, match="does not let go"), state_file.exclusive(path, patience=0.1):
        pass
    assert time.monotonic() - since < 30
    threading.Timer(0.1, let_go.set).start()
    with state_file.exclusive(path, patience=60):
        assert let_go.is_set()
    holder.join()


def test_a_held_lock_stops_nobody_but_the_first_answer_for_a_name(tmp_path: Path) -> None:
    models = write_routes(tmp_path / "models")
    with (
        stand_in_triton() as triton,
        recording_upstream() as upstream,
        running_gateway(tmp_path, models=models, triton_url=triton.url, upstream=upstream.url) as gateway,
        ThreadPoolExecutor(3) as pool,
    ):
        with state_file.exclusive(gateway.state_dir / "owned.json"):
            queries = [pool.submit(predict, gateway.url, entries_for("clip-text"), text="a cat") for _ in range(3)]
            assert eventually(lambda: triton.calls.count("clip_text") == 3)
            # The event loop is free: somebody else is answered while they wait.
            assert predict(gateway.url, entries_for("ocr"), image=b"image").status == 200
            answers = [query.result() for query in queries]
        assert [answer.status for answer in answers] == [503] * 3
        assert "another process holds" in str(answers[0].body)
        assert predict(gateway.url, entries_for("clip-text"), text="a cat").status == 200
        assert Ledger(gateway.state_dir).owned().keys() == {"ViT-B-16__openai"}


def test_an_outage_that_cannot_be_written_now_is_written_later(tmp_path: Path) -> None:
    models = write_routes(tmp_path / "models")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(tmp_path, models=models, triton_url=nobody, upstream=nobody, immich_deadline=1) as gateway:
        outages = Outages(gateway.state_dir)
        with state_file.exclusive(outages.path):
            assert predict(gateway.url, entries_for("ocr"), image=b"image").status == 503
            assert outages.marks() == {}
        assert eventually(lambda: outages.marks().keys() == {"ocr"})
