"""Ask the gateway (or any Immich ML) about one image, as Immich does, and print the answer in a table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from immich_triton.immich.ml_client import ENTRIES, NOT_FOUND, Answer, cause, entries_for, predict, shown


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("image", help="an image file; for --task clip-text the query itself")
    command.add_argument("--task", choices=sorted(ENTRIES), default="ocr", help="what to ask (default: %(default)s)")
    command.add_argument(
        "--model",
        help="the Immich model name to ask for (default: ViT-B-16__openai for CLIP, else Immich's own default)",
    )
    command.add_argument(
        "--url", default="http://127.0.0.1:3004", help="address of the gateway or a stock ML (default: %(default)s)"
    )
    command.add_argument("--json", action="store_true", help="print the raw answer instead of a table")
    return command


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0 for an answer, 1 for an error."""
    options = parser().parse_args(arguments)
    entries = entries_for(options.task, options.model)
    try:
        if options.task == "clip-text":
            answer = predict(options.url, entries, text=options.image)
        else:
            answer = predict(options.url, entries, image=Path(options.image).read_bytes())
    except OSError as error:  # requests' errors are OSErrors too
        if isinstance(error, requests.RequestException):
            print(f"predict: nobody answers at {shown(options.url)}: {cause(error)}", file=sys.stderr)
        else:
            print(f"predict: cannot read: {error}", file=sys.stderr)
        if isinstance(error, requests.ConnectionError):
            print("predict: is the gateway running? Start it with: immich-triton run", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(answer.body, ensure_ascii=False, indent=1))
    elif answer.status == 200:
        show(options.task, answer, Console())
    if answer.status != 200:
        print(f"predict: {shown(options.url)} answered {answer.status}: {answer.body}", file=sys.stderr)
        if answer.status == requests.codes.not_found:
            print(f"predict: {NOT_FOUND}", file=sys.stderr)
        return 1
    return 0


def show(task: str, answer: Answer, console: Console) -> None:
    """Print a successful answer."""
    body: dict[str, Any] = answer.body
    size = f"{body['imageWidth']} x {body['imageHeight']} pixels, " if "imageWidth" in body else ""
    if task == "ocr":
        console.print(ocr_table(body))
        found = f"{len(body['ocr']['text'])} lines"
    elif task == "faces":
        console.print(faces_table(body))
        found = f"{len(body['facial-recognition'])} faces"
    else:
        vector = json.loads(body["clip"])
        norm = sum(value * value for value in vector) ** 0.5
        found = f"{len(vector)} numbers, norm {norm:.4f}, {', '.join(f'{value:.4f}' for value in vector[:6])}, …"
    console.print(f"{size}{found}, {answer.seconds * 1000:.0f} ms")


def ocr_table(body: dict[str, Any]) -> Table:
    """Return a table of lines: text, its score, its box in pixels (top left, bottom right) and the score of the box."""
    table = Table("#", "text", "score", "box", "box score")
    ocr, width, height = body["ocr"], body["imageWidth"], body["imageHeight"]
    for index, text in enumerate(ocr["text"]):
        corners = ocr["box"][8 * index : 8 * index + 8]
        xs, ys = [x * width for x in corners[0::2]], [y * height for y in corners[1::2]]
        box = f"{min(xs):.0f},{min(ys):.0f} {max(xs):.0f},{max(ys):.0f}"
        table.add_row(str(index + 1), text, f"{ocr['textScore'][index]:.3f}", box, f"{ocr['boxScore'][index]:.3f}")
    return table


def faces_table(body: dict[str, Any]) -> Table:
    """Return a table of faces: score, box in pixels, the first numbers of the embedding."""
    table = Table("#", "score", "box", "embedding")
    for index, face in enumerate(body["facial-recognition"]):
        box = face["boundingBox"]
        corners = f"{box['x1']:.0f},{box['y1']:.0f} {box['x2']:.0f},{box['y2']:.0f}"
        head = ", ".join(f"{value:.3f}" for value in json.loads(face["embedding"])[:4])
        table.add_row(str(index + 1), f"{face['score']:.3f}", corners, f"{head}, …")
    return table


if __name__ == "__main__":
    sys.exit(main())
