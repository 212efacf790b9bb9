"""One arena of memory for all sessions of a process that run one after the other, instead of one for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from onnxruntime_backend.engines import runtime_module
from onnxruntime_backend.settings import Settings

_NEXT_POWER_OF_TWO: Final = 0
_SAME_AS_REQUESTED: Final = 1

_registered: set[int | None] = set()
"""Devices of this process whose arena is shared already; ONNX Runtime refuses a second one."""


def share(settings: Settings, warn: Callable[[str], None]) -> Settings:
    """Return *settings* for sessions that take their memory from one arena, on the device that they name.

    With ``gpu_mem_limit`` that bounds them together. Where ONNX Runtime cannot do it, that goes to *warn*, and each
    session keeps an arena, and the limit, of its own.
    """
    if not settings.mem_arena:
        return settings
    runtime = runtime_module()
    try:
        if settings.device_id not in _registered:
            _register(runtime, settings)
            _registered.add(settings.device_id)
    except Exception as error:  # noqa: BLE001 - whatever it is, sessions with arenas of their own compute the same
        warn(f"the sessions do not share their memory, each may take as much as gpu_mem_limit says: {error}")
        return settings
    return replace(settings, session_entries={**settings.session_entries, "session.use_env_allocators": "1"})


def _register(runtime: Any, settings: Settings) -> None:
    state = runtime.capi.onnxruntime_pybind11_state
    strategy = settings.cuda.get("arena_extend_strategy", "kSameAsRequested")
    arena = runtime.OrtArenaCfg(
        {
            # 0: no limit but the memory there is.
            "max_mem": int(settings.cuda.get("gpu_mem_limit", 0)),
            "arena_extend_strategy": _NEXT_POWER_OF_TWO if strategy == "kNextPowerOfTwo" else _SAME_AS_REQUESTED,
        }
    )
    kind = state.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    if settings.device_id is None:
        memory = state.OrtMemoryInfo("Cpu", kind, 0, state.OrtMemType.DEFAULT)
        state.create_and_register_allocator(memory, arena)
        return
    memory = state.OrtMemoryInfo("Cuda", kind, settings.device_id, state.OrtMemType.DEFAULT)
    options = {**settings.cuda, "device_id": str(settings.device_id)}
    state.create_and_register_allocator_v2("CUDAExecutionProvider", memory, options, arena)
