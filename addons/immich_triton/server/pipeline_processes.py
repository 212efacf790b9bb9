"""How many processes a pipeline gets beside networks on a GPU: by the CPUs there are, and not what its config says.

On a CPU the networks take nearly all of the time, and two processes cut up the pages for all of them. A GPU would
wait for these two.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from immich_pipelines.cpus import available_cpus

PARAMETER: Final = "most_processes"
"""The key in the ``config.pbtxt`` of a pipeline: the bound. Without it the count of the config stands."""
CPUS_EACH: Final = 2
"""The processes that decode want as much: a pipeline has one process for so many CPUs."""
SHARED_MEMORY_MIB: Final = 64
"""What a further process may take of the shared memory: the tensors of one page and of its lines, twice."""

Configs = Callable[[str], str | None]
"""From the name of a model to the config to load it with, as JSON; None: the file's."""


def configs(models: Path, free_mib: int, cpus: int | None = None) -> Configs:
    """Return the configs for the pipelines in *models* on a machine with *cpus* (default: those there are).

    *free_mib*: the shared memory that nothing else needs; no pipeline gets more processes than there is room for.
    """
    number = available_cpus() if cpus is None else cpus

    def config(model: str) -> str | None:
        return with_processes(models / model / "config.pbtxt", number, free_mib // SHARED_MEMORY_MIB)

    return config


def with_processes(path: Path, cpus: int, room: int) -> str | None:
    """Return the config in *path* as JSON with one process for two of *cpus*, at most *room* more than it states.

    None where that are no more than it states, where it states no bound, or where it cannot be read: Triton then says
    why.
    """
    # Here, and not above: the supervisor of a machine without a card never asks, and gRPC with numpy are 21 MB of it.
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    try:
        config: Any = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        most = int(config.parameters[PARAMETER].string_value) if PARAMETER in config.parameters else 0
    except (OSError, ValueError, text_format.ParseError):
        return None
    if len(config.instance_group) != 1 or config.backend != "python":
        return None
    (group,) = config.instance_group
    wanted = min(most, cpus // CPUS_EACH, group.count + room)
    if wanted <= group.count:
        return None
    group.count = wanted
    return str(json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None))


def free_shared_memory(folder: Path, needed_mib: int) -> int:
    """Return the MiB of *folder* that are free beyond *needed_mib*; 0 where nobody can tell."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return max(0, (status.f_bavail * status.f_frsize >> 20) - needed_mib)
