"""``scripts/lab/gpu.py`` as a whole, on the CPU and with networks of a few kilobytes."""

from __future__ import annotations

import json
from pathlib import Path

import gpu
import pytest
from tiny_encoders import TinyEncoder

from immich_pipelines.cpus import available_cpus


def test_it_measures_all_that_a_repository_routes(
    encoders: dict[str, TinyEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "LOG", tmp_path / "gpu.log")
    small = ["--clients", "1", "2", "--each", "1", "--limit", "2", "--sizes", "2", "--runs", "2"]
    out = tmp_path / "table.json"
    assert gpu.main(["--device", "cpu", "--models", str(encoders["see_a"].models), "--json", str(out), *small]) == 0
    table = json.loads(out.read_text())
    assert "1x3x32x32" in table["see_a alone, ms"]
    assert float(table["gateway: seconds to start"]) > 0
    assert "ms" in table["clip: longest of 2 sizes, first and again"]
    for name in ("as exported", "bound", "fp16"):
        assert "see_a 1x3x32x32: " in table[f"lever: {name}"]
        assert "lowest cosine 1.000000" in table[f"lever: {name}"] or name == "fp16"
    assert table["lever: CUDA graph"] == "not possible: is for a card"
    for clients in (1, 2):
        assert "gateway " in table[f"clip: {clients} clients"]
        assert "see_a " in table[f"clip: {clients} clients, busy"]
    # The kernel counts in hundredths of a second: who took less in one of the two is missing there.
    busy = " ".join(table[f"clip: {clients} clients, busy"] for clients in (1, 2))
    assert all(f"{name} " in busy for name in ("mitmdump", "tritonserver", "this client"))
    assert float(table[f"clip: decoding alone on {available_cpus()} CPUs"].removesuffix("/s")) > 0


def test_the_networks_alone_and_what_would_make_them_faster(gpu_ocr_models: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    chosen = ["--networks-only", "--runs", "1", "--levers", "as exported", "fp16"]
    assert gpu.main(["--device", "cpu", "--models", str(gpu_ocr_models), "--json", str(out), *chosen]) == 0
    table = json.loads(out.read_text())
    for name in ("ocr_det", "ocr_rec"):
        assert f"{name} " in table["lever: fp16"]
        assert f"{name} alone, ms" in table
    assert not any("clients" in what or "gateway" in what for what in table)
