"""What a stock Immich ML would run for a request, with stock's libraries and without its models.

Runs in the environment of requirements-stock.lock (see `stock`), never in the tests' own. The form is declared, the
entries are read and the names are cleaned as stock does. ``serve`` listens on a free port and prints it: ``GET /ran``
tells what was asked since the last time. ``pipe`` answers requests from standard input without HTTP in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
from typing import Annotated, Any
from urllib.parse import unquote

import httptools
import orjson
import uvicorn
from fastapi import Depends, FastAPI, File, Form, HTTPException

CLEAN = str.maketrans(":\\/", "___", ".")

app = FastAPI()
ran: list[list[str]] = []


def asked(entries: Annotated[str, Form()]) -> list[list[str]]:
    """Return task, type and clean name of each entry; 422 for what is no request."""
    try:
        return [
            [task, type_, model["modelName"].split("/")[-1].translate(CLEAN)]
            for task, types in orjson.loads(entries).items()
            for type_, model in types.items()
        ]
    except (orjson.JSONDecodeError, KeyError, AttributeError) as error:
        raise HTTPException(422, "Invalid request format.") from error


@app.post("/predict")  # type: ignore[untyped-decorator]
async def predict(
    models: Annotated[list[list[str]], Depends(asked)],
    image: Annotated[bytes | None, File()] = None,
    text: Annotated[str | None, Form()] = None,
) -> dict[str, Any]:
    """Tell what would be run, and on what. Also what stock fails on later (an unknown task) counts as run."""
    if image is None and text is None:
        raise HTTPException(400, "Either image or text must be provided")
    ran.extend(models)
    return {"ran": models, "image": None if image is None else hashlib.sha256(image).hexdigest(), "text": text}


@app.get("/ran")  # type: ignore[untyped-decorator]
async def take_ran() -> list[list[str]]:
    """Return what was run since the last time."""
    taken = ran.copy()
    ran.clear()
    return taken


async def ask(target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, chunk: int) -> tuple[int, bytes]:
    """POST to the app as uvicorn hands a request over, the body in pieces of *chunk* bytes."""
    raw_path = httptools.parse_url(target).path
    path = raw_path.decode("ascii")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in headers],
        "client": None,
        "server": None,
    }
    pieces = [body[begin : begin + chunk] for begin in range(0, len(body), chunk)] or [b""]
    status, content = 0, b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, content
        status = message.get("status", status)
        content += message.get("body", b"")

    await app(scope, receive, send)
    return status, content


def say(line: str) -> None:
    """Write a line for whoever started this."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def pipe() -> None:
    """Answer requests: a line of JSON, then the body; the answer is a line of JSON with status and detail."""
    with asyncio.Runner() as runner:
        while line := sys.stdin.buffer.readline():
            head = json.loads(line)
            body = sys.stdin.buffer.read(head["length"])
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]]
            try:
                status, content = runner.run(ask(head["target"].encode("latin-1"), headers, body, head["chunk"]))
                answer = json.loads(content) if status == 200 else {"detail": content.decode("latin-1")}
            except Exception as error:  # noqa: BLE001 - uvicorn answers 500, whatever was raised, or 400 for a bad target
                status, answer = 500, {"detail": repr(error)}
            say(json.dumps({"status": status, **answer}))


def serve() -> None:
    """Listen with stock's server."""
    listener = socket.create_server(("127.0.0.1", 0))
    say(str(listener.getsockname()[1]))
    server = uvicorn.Server(uvicorn.Config(app, http="httptools", log_level="warning"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    {"pipe": pipe, "serve": serve}[sys.argv[1]]()
