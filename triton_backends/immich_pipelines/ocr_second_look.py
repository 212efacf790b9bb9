"""A second look at lines that may be in the other Chinese script: paler, a recogniser reads them in another way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_ctc import Text
from immich_pipelines.ocr_variants import Choice, evidence, in_doubt

Array = npt.NDArray[Any]

ReadLines = Callable[[Sequence[Array]], Awaitable[list[Text]]]
"""Line images (uint8 [48, width, 3]) to what they say."""

LOOKS: Final = 3
"""Lines of a page that are read once more, at most: a page of one script has seldom one."""


async def second_look(lines: Sequence[Array], texts: Sequence[Text], read: ReadLines) -> list[Text]:
    """Return *texts*, what a page says, and instead of those that may be in the wrong script what is seen paler.

    A recogniser that takes a whole line for traditional does so in its own context, with up to 99 % for a character;
    what it says of the same line with less contrast is nearly independent of that. So three speak for a script, in
    log-odds that add up: the first look, the second one, and the other lines of the page (`ocr_variants.page_odds`). A
    look says what its characters do on the average, not together: they were all taken for one script at once. All of
    the line is in the script that the sum says, as far as either look had that as a second choice; a line of which the
    second look reads nothing again is left to the page. Only characters that have a variant change, and only to that.

    *lines*: the images that *texts* were read from, uint8 [48, width, 3].
    """
    found = list(texts)
    doubtful = in_doubt([(text.words, text.choices) for text in texts])
    # Those first that are the least sure for their length.
    chosen = sorted(doubtful, key=lambda index: abs(evidence(texts[index].choices)) / len(texts[index].choices))[:LOOKS]
    seen = await read([_paler(lines[index]) for index in chosen]) if chosen else []
    for index, second in zip(chosen, seen, strict=True):
        first, again = texts[index], _aligned(texts[index], second)
        looks = first.choices, [choice for _, choice in again.values() if choice]
        odds = doubtful[index] + sum(evidence(look) / len(look) for look in looks if look)
        if again and odds:
            found[index] = _in_script(first, again, 1 if odds > 0 else -1)
    return found


def _paler(line: Array) -> Array:
    """Return *line* with half of its contrast, around the grey that the networks see as 0."""
    return np.asarray(line // 2 + 64, np.uint8)


def _aligned(first: Text, second: Text) -> dict[int, tuple[str, Choice | None]]:
    """Return what *second* has for each choice of *first*, by its place there: the same character or a variant of it.

    None is a character that both scripts have: 台 for 臺. What was read as something else is left out, and all of a
    line of another length.
    """
    places, there = _places(first.words), _places(second.words)
    if len(places) != len(there):
        return {}
    at = dict(zip(places, there, strict=True))
    choices = {choice.place: choice for choice in second.choices}
    found = {}
    for choice in first.choices:
        read = second.words[at[choice.place]]
        if read in (first.words[choice.place], *(variant for variant, _ in choice.variants)):
            again = choices.get(at[choice.place])
            found[choice.place] = read, again and again._replace(place=choice.place)
    return found


def _in_script(first: Text, again: Mapping[int, tuple[str, Choice | None]], script: int) -> Text:
    """Return *first* in *script* (1 simplified, -1 traditional) as far as either look had that as a second choice."""
    characters = list(first.words)
    for choice in first.choices:
        read, second = again.get(choice.place, (first.words[choice.place], None))
        if choice.script == script:
            continue
        if read != first.words[choice.place]:
            characters[choice.place] = read
        elif choice.open or (second and second.open):
            characters[choice.place] = choice.variant
    return first._replace(words="".join(characters), choices=())


def _places(words: str) -> list[int]:
    return [place for place, character in enumerate(words) if character != " "]
