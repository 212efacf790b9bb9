"""What Immich's *All* does to photos that fail in it."""

from __future__ import annotations

from typing import Final

_DELETES: Final = (
    "photos that fail in a run of All are not found by Missing, since Immich deletes what it had of all of them first "
    "and goes on to count them as done; "
)

NOT_FOUND_BY_MISSING: Final = {
    "ocr": f"{_DELETES}immich-triton reprocess --lost finds them",
    "facial-recognition": f"{_DELETES}Refresh for Face Detection (Administration, Job Queues; or immich-triton reindex "
    "--task faces) finds the faces of all photos again",
}
"""What to say, by task, when requests failed while such a run may have been on: nothing but Immich's own jobs tells
whether it was. CLIP is not among them, whose *Missing* looks for the vectors themselves."""
