"""How many CPUs a process may use, by its affinity and the quotas of the control groups around it; what they can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immich_pipelines.cpus import available_cpus, pair_bits
from immich_pipelines.decoding.client import default_decoders


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)))


def group(root: Path, path: str, quota: str | None) -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    if quota is not None:
        (root / path / "cpu.max").write_text(quota + "\n")


def counted(tmp_path: Path, own: str) -> int:
    (tmp_path / "own").write_text(own)
    return available_cpus(tmp_path / "own", tmp_path / "groups")


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 16), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("9900000 100000", 16)],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, quota: str, cpus: int) -> None:
    group(tmp_path / "groups", ".", quota)
    assert counted(tmp_path, "0::/\n") == cpus


def test_the_smallest_quota_of_the_groups_around_a_service_counts(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    group(groups, ".", None)
    group(groups, "system.slice", "400000 100000")
    group(groups, "system.slice/immich.service", "800000 100000")
    assert counted(tmp_path, "0::/system.slice/immich.service\n") == 4
    group(groups, "system.slice/immich.service", "100000 50000")
    assert counted(tmp_path, "1:cpu:/elsewhere\n0::/system.slice/immich.service\n") == 2


@pytest.mark.parametrize("own", ["", "1:cpu:/a\n", "0::/gone/away\n", "0::/../..\n"])
def test_without_quotas_the_affinity_counts(tmp_path: Path, own: str) -> None:
    (tmp_path / "groups").mkdir()
    assert counted(tmp_path, own) == 16
    assert available_cpus(tmp_path / "nothing", tmp_path / "groups") == 16


@pytest.mark.parametrize(("cpus", "processes"), [(1, 2), (2, 2), (6, 6), (16, 16), (128, 16)])
def test_images_are_decoded_on_all_cpus_within_bounds(cpus: int, processes: int) -> None:
    assert default_decoders(cpus) == processes


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        ("fpu ssse3 avx2 fma avx512f avx512bw avx512_vnni avx512_bf16", 32),
        ("fpu ssse3 avx2 fma avx_vnni", 32),
        ("fpu ssse3 avx2 fma", 16),
        ("fpu ssse3 avx2 fma avx512f avx512bw avx512vl", 16),
        ("fpu ssse3 avx2 xavx512_vnni avx_vnni_int8", 16),
        ("fpu ssse3 sse4_1 sse4_2", 16),
        ("fpu sse sse2 xssse3", 0),
    ],
)
def test_cpus_with_vnni_add_products_up_in_32_bits_and_others_in_16(tmp_path: Path, flags: str, bits: int) -> None:
    processor = f"processor\t: 0\nmodel name\t: with avx512_vnni\nflags\t\t: {flags}\nbugs\t\t: avx_vnni\n\n"
    (tmp_path / "cpuinfo").write_text(processor * 2)
    assert pair_bits(tmp_path / "cpuinfo") == bits


def test_a_cpu_that_nothing_is_known_of_multiplies_no_bytes(tmp_path: Path) -> None:
    assert pair_bits(tmp_path / "missing") == 0
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert pair_bits(tmp_path / "cpuinfo") == 0
