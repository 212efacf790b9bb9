"""The recorded shapes of mt-photos-ai's answers, and whether another answer has the same one."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from places import PROJECT

SHAPES: Final[dict[str, Any]] = json.loads((PROJECT / "tests/data/mt_photos/shapes.json").read_text(encoding="utf-8"))

NUMBER: Final = re.compile(r"-?\d+\.(\d+)")


def differences(answer: object, recorded: object, place: str = "answer") -> list[str]:
    """Return where *answer* has another shape than *recorded*, a line each. More keys are allowed, as in an object.

    Lists are compared by their first elements: every one of the answer's with the recorded first. A string that holds a
    number has as many decimals; another string may be any.
    """
    if type(answer) is not type(recorded):
        return [f"{place} is of type {type(answer).__name__}, recorded {type(recorded).__name__}"]
    if isinstance(recorded, dict) and isinstance(answer, dict):
        missing = [f"{place} lacks {key}" for key in recorded.keys() - answer.keys()]
        both = [key for key in recorded if key in answer]
        return missing + [line for key in both for line in differences(answer[key], recorded[key], f"{place}.{key}")]
    if isinstance(recorded, list) and isinstance(answer, list):
        if not recorded:
            return [f"{place} is not empty"] if answer else []
        return [
            line for index, each in enumerate(answer) for line in differences(each, recorded[0], f"{place}[{index}]")
        ]
    if isinstance(recorded, str) and isinstance(answer, str) and (number := NUMBER.fullmatch(recorded)):
        found = NUMBER.fullmatch(answer)
        if found is None or len(found[1]) != len(number[1]):
            return [f"{place} is {answer!r}, recorded {recorded!r}"]
    return []
