"""How many files and sockets this process may have open; shells often say 1024, and let it be raised."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    import resource


def allow(needed: int) -> int:
    """Let this process open *needed* files, as far as the hard limit goes; return how many it may."""
    if sys.platform == "win32":
        return needed  # it has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft if soft != resource.RLIM_INFINITY else needed
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return raised
