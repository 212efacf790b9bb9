"""The comparison as one HTML file without any other: pictures, both sides' boxes, texts side by side."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import Any, Final

from immich_triton.inspect.comparing import Comparison, Pair, face_polygons, line_polygons
from immich_triton.inspect.comparisons import COLUMNS, KEYS, Album, Outcome, Picture, Summary
from immich_triton.inspect.polygons import Polygon

STYLE: Final = """
:root { color-scheme: light dark; --ours: #14803c; --theirs: #d9480f; --line: #8884; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1400px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .2em .7em; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } td { vertical-align: top; }
.ours { color: var(--ours); } .theirs { color: var(--theirs); }
section { display: grid; grid-template-columns: minmax(300px, 2fr) 3fr; gap: 1.5em; padding: 1.2em 0; }
section { border-top: 2px solid var(--line); }
section h2 { grid-column: 1 / -1; font-size: 1em; margin: 0; } h2 small { font-weight: 400; margin-left: 1em; }
figure { position: relative; margin: 0; align-self: start; } figure img { width: 100%; display: block; }
figure svg { position: absolute; inset: 0; width: 100%; height: 100%; }
polygon { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
polygon.ours { stroke: var(--ours); } polygon.theirs { stroke: var(--theirs); stroke-dasharray: 6 4; }
mark { background: #ffd43b; color: #000; } td.number { text-align: right; white-space: nowrap; }
.error { color: #c92a2a; } h3 { font-size: 1em; margin: .8em 0 .3em; } h3:first-child { margin-top: 0; }
label { margin-right: 1.5em; }
body:has(#different:checked) section.same { display: none; }
body:has(#hide-ours:checked) polygon.ours, body:has(#hide-theirs:checked) polygon.theirs { display: none; }
"""

LEGEND: Final = """
<p>Boxes and texts of <b class=ours>Triton</b> (solid) and <b class=theirs>stock</b> (dashed).
<mark>Marked</mark>: what the other side read differently. The least alike pictures come first.</p>
<p><label><input type=checkbox id=different> only where they differ</label>
<label><input type=checkbox id=hide-ours> hide Triton's boxes</label>
<label><input type=checkbox id=hide-theirs> hide stock's boxes</label></p>
"""


def render(album: Album, summaries: Iterable[Summary], heading: str) -> str:
    """Return the report, the least alike pictures first."""
    ordered = sorted(album.pictures, key=lambda picture: (picture.likeness, str(picture.path)))
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Triton and stock Immich ML compared</title>",
        f"<style>{STYLE}</style><h1>Triton and stock Immich ML compared</h1><p>{escape(heading)}</p>",
        _summary(summaries),
        LEGEND,
        _left_out(album),
        *(_section(picture) for picture in ordered),
    ]
    return "\n".join(parts)


def _left_out(album: Album) -> str:
    if not album.left_out:
        return ""
    kept = sum(bool(picture.thumbnail) for picture in album.pictures)
    return f"<p>Only the {kept} photos that differ most are pictured; of {album.left_out} others there is the text.</p>"


def _summary(summaries: Iterable[Summary]) -> str:
    head = "".join(f"<th>{escape(title)}" for title, _ in COLUMNS)
    rows = "".join("<tr>" + "".join(f"<td>{escape(show(summary))}" for _, show in COLUMNS) for summary in summaries)
    return f"<table><tr>{head}{rows}</table>"


def _section(picture: Picture) -> str:
    kind = "same" if picture.same else "different"
    times = " · ".join(
        f"{outcome.task} {1000 * outcome.ours.seconds:.0f} and {1000 * outcome.theirs.seconds:.0f} ms"
        for outcome in picture.outcomes
        if outcome.ours and outcome.theirs
    )
    details = "".join(_details(outcome) for outcome in picture.outcomes)
    head = f"<h2>{escape(str(picture.path))}<small>{kind}</small><small>{times}</small></h2>"
    return f"<section class={kind}>{head}<figure>{_figure(picture)}</figure><div>{details}</div></section>"


def _figure(picture: Picture) -> str:
    if not picture.thumbnail:
        return ""
    data = base64.b64encode(picture.thumbnail).decode()
    shapes = "".join(shape for outcome in picture.outcomes for shape in _shapes(outcome))
    overlay = f'<svg viewBox="0 0 1 1" preserveAspectRatio="none">{shapes}</svg>'
    return f'<img loading="lazy" alt="" src="data:image/jpeg;base64,{data}">{overlay}'


def _shapes(outcome: Outcome) -> Iterator[str]:
    """Yield the boxes of both sides, in 0..1 of the picture; the dashed ones last, to be seen upon the solid ones."""
    if outcome.comparison is None or outcome.ours is None or outcome.theirs is None:
        return
    for side, answer in (("ours", outcome.ours.body), ("theirs", outcome.theirs.body)):
        for polygon in _polygons(outcome.task, answer):
            points = " ".join(f"{x:.5f},{y:.5f}" for x, y in polygon)
            yield f'<polygon class="{side}" points="{points}"/>'


def _polygons(task: str, answer: dict[str, Any]) -> list[Polygon]:
    if task == "ocr":
        return line_polygons(answer["ocr"])
    if task == "faces":
        width, height = answer.get("imageWidth"), answer.get("imageHeight")
        if not width or not height:
            return []
        faces = face_polygons(answer[KEYS[task]])
        return [tuple((x / width, y / height) for x, y in polygon) for polygon in faces]
    return []


def _details(outcome: Outcome) -> str:
    comparison = outcome.comparison
    if comparison is None or outcome.ours is None or outcome.theirs is None:
        return f"<h3>{escape(outcome.task)}</h3><p class=error>{escape(outcome.error)}</p>"
    if not comparison.ours and not comparison.theirs:
        return f"<h3>{escape(outcome.task)}: nothing found by either</h3>"
    title = f"<h3>{escape(comparison.summary)}</h3>"
    ours, theirs = outcome.ours.body[KEYS[outcome.task]], outcome.theirs.body[KEYS[outcome.task]]
    if outcome.task == "ocr":
        return title + _texts(comparison, ours["text"], theirs["text"])
    if outcome.task == "faces":
        return title + _faces(comparison, ours, theirs)
    return title


def _texts(comparison: Comparison, ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Return the lines of both sides in Triton's order; lines of stock alone at the end."""
    pairs = {pair.ours: pair for pair in comparison.pairs}
    rows = []
    for index, text in enumerate(ours):
        pair = pairs.get(index)
        other = theirs[pair.theirs] if pair else ""
        left, right = marked(text, other)
        rows.append(f"<tr><td class=ours>{left}<td class=theirs>{right}<td class=number>{_overlap(pair)}")
    rows += [f"<tr><td><td class=theirs><mark>{escape(theirs[index])}</mark><td>" for index in comparison.only_theirs]
    return f"<table><tr><th>Triton<th>stock<th>box IoU{''.join(rows)}</table>"


def _faces(comparison: Comparison, ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> str:
    scores = [[f"score {face['score']:.3f}" for face in faces] for faces in (ours, theirs)]
    rows = [
        f"<tr><td class=ours>{scores[0][pair.ours]}<td class=theirs>{scores[1][pair.theirs]}"
        f"<td class=number>{pair.likeness:.5f}<td class=number>{_overlap(pair)}"
        for pair in comparison.pairs
    ]
    rows += [f"<tr><td class=ours><mark>{scores[0][i]}</mark><td><td><td>" for i in comparison.only_ours]
    rows += [f"<tr><td><td class=theirs><mark>{scores[1][i]}</mark><td><td>" for i in comparison.only_theirs]
    return f"<table><tr><th>Triton<th>stock<th>cosine<th>box IoU{''.join(rows)}</table>"


def _overlap(pair: Pair | None) -> str:
    return f"{pair.overlap:.3f}" if pair else ""


def marked(left: str, right: str) -> tuple[str, str]:
    """Return both texts as HTML, with what differs between them in ``<mark>``."""
    parts: tuple[list[str], list[str]] = ([], [])
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for side, text in zip(parts, (left[i1:i2], right[j1:j2]), strict=True):
            if text:
                side.append(escape(text) if tag == "equal" else f"<mark>{escape(text)}</mark>")
    return "".join(parts[0]), "".join(parts[1])
