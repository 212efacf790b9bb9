"""What Triton's error texts mean: whose fault an answer is, and which model's process was lost over it.

The texts are those of Triton 2.51 and of older servers, whose Python backend words the same things in another way.
They are looked for at the beginning only, past what Triton and our pipelines put before an error: further on a text may
quote what it was asked, and nobody's query may look like a dead server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

FaultKind = Literal["unreachable", "broken", "timeout", "process", "unloaded", "memory", "busy", "status", "garbage"]
"""How a call failed:

* ``unreachable``: no connection. ``broken``: the connection ended before the answer.
* ``timeout``: no answer, and the model does not report ready any more.
* ``process``: a model's process died, or hangs, while Triton goes on to report ready.
* ``unloaded``: the model, or one that it calls, is not loaded; nothing was executed.
* ``memory``: the server has no memory, or no shared memory, left.
* ``busy``: a queue is full, or whatever stands before Triton says that it is not available.
* ``status``: any other error. ``garbage``: an answer that is none.
"""

_BEFORE: Final = r"""
    (?:\w+Error:\smodel\s(?P<called>[^\s:]+)\sfailed:\s)?
    (?:in\sensemble\s'[^']*',\s)?
    (?:Failed\sto\sprocess\sthe\srequest\(s\)\sfor\smodel\s(?:instance\s)?'(?P<instance>[^']+)',\smessage:\s)?
"""
"""What stands before the error itself: our pipelines' exception, the model that one called, Triton's own words."""

_PROCESS: Final = re.compile(
    _BEFORE + r"(?:The\s)?[Ss]tub\sprocess\s(?:'(?P<process>[^']+)'\s)?"
    r"(?:is\snot\shealthy|is\sunhealthy|has\s(?:exited|been\srestarted)|.{0,40}\brestarted)",
    re.VERBOSE,
)
_RENEWED: Final = re.compile(_BEFORE + r".{0,80}\brestarted\b", re.VERBOSE)
_UNLOADED: Final = re.compile(
    _BEFORE
    + r"""(?:
        Request\sfor\sunknown\smodel
      | (?:Model\s\S+\s-\sError\swhen\srunning\sinference:\s)?
        (?:Failed\sfor\sexecute\sthe\sinference\srequest\.\s)?
        Model\s'?(?P<missing>[^\s']+)'?\s(?:is\snot\sready|has\sbeen\sunloaded|is\sbeing\sunloaded|is\sunloaded)
      | .{0,80}\bin-flight\b.{0,80}\bunload
      | Server\s(?:is\sstopping|exiting)
      | no\sversion\sis\savailable
    )""",
    re.VERBOSE,
)
_MEMORY: Final = re.compile(
    _BEFORE
    + r"""(?:\w+(?:Error|Exception):\s)?(?:
        Failed\sto\sincrease\sthe\sshared\smemory\spool
      | Failed\sto\screate\snew\smapped\sregion
      | Unable\sto\sinitialize\sshared\smemory
      | [Ff]ailed\sto\sallocate
      | (?:CUDA\serror:\s|CUDA\s)?out\sof\smemory
      | std::bad_alloc
      | Unable\sto\sallocate\s
    )""",
    re.VERBOSE,
)
_NO_ROOM: Final = re.compile(r"_?(?:Array)?MemoryError\b")
_NET_MEMORY: Final = re.compile(
    r"\w+Error: model \S+ failed: .*?(?:[Ff]ailed to allocate|out of memory|bad_alloc)", re.DOTALL
)
"""A net sees tensors and no text, so whatever it says is its own."""
_BUSY: Final = re.compile(_BEFORE + r"(?:Exceeds\smaximum\squeue\ssize|Request\stimeout\sexpired)", re.VERBOSE)

_ELSEWHERE: Final = ("429", "502", "503", "504")
"""Statuses that say "not now", of Triton or of a proxy before it."""

_PLACE: Final = re.compile(r"_\d+(?:_\d+)?$")
"""What Triton puts behind a model's name to name its processes: ``ocr_rec_0_1``."""

LOOKED_AT: Final = 1000
"""Characters of a text that are looked at."""


@dataclass(frozen=True)
class Diagnosis:
    """How a call failed, and of which model (empty where the text names none) when it lost its process.

    ``renewed``: the server started that process again by itself, as older ones do; the model may never look unready.
    """

    kind: FaultKind
    model: str = ""
    renewed: bool = False


def diagnose(status: str, text: str, pipeline: str) -> Diagnosis:
    """Tell what the answer *text* with HTTP *status* means for a call to *pipeline*."""
    text = text[:LOOKED_AT]
    if found := _PROCESS.match(text):
        process = found["process"] or found["instance"] or ""
        model = found["called"] or _PLACE.sub("", process) or pipeline
        return Diagnosis("process", model, renewed=_RENEWED.match(text, found.start()) is not None)
    if found := _UNLOADED.match(text):
        return Diagnosis("unloaded", found["missing"] or found["called"] or pipeline)
    if _MEMORY.match(text) or _NO_ROOM.match(text) or _NET_MEMORY.match(text):
        return Diagnosis("memory")
    if status in _ELSEWHERE or _BUSY.match(text):
        return Diagnosis("busy")
    return Diagnosis("status")
