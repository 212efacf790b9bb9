"""Looks at one part of an installation after the other: machine, models, Triton, gateway, Immich."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urljoin

import requests

from immich_triton.cli.findings import Finding, error, note, ok, warning
from immich_triton.core import bounded_http, model_states
from immich_triton.core.bounded_http import Reply
from immich_triton.core.model_states import State
from immich_triton.immich.api import UNAUTHORIZED, Immich, ImmichError
from immich_triton.immich.clip_names import dimension_of, names_of
from immich_triton.immich.ml_client import cause, shown
from immich_triton.immich.model_names import clean_name
from immich_triton.ml.ledger import Ledger, LedgerError
from immich_triton.ml.route_file import FILE as ROUTE
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.routes import RouteTable, load_routes
from immich_triton.server import preflight
from immich_triton.server.triton_settings import TritonSettings
from immich_triton.triton import wire as triton_wire

LEAST_MIB: Final = TritonSettings.shared_memory_mib
"""Size of /dev/shm below which the embedded Triton does not start; OCR alone takes about 250 MiB."""

AMPLE_MIB: Final = 512
"""Size of /dev/shm from which all pipelines have room."""

TOKEN: Final = "immich_path_token"  # noqa: S105 - the option's name

FIRST_WITH_PATH: Final = 3
"""The version of Immich from which on it keeps the path of a machine-learning URL."""

TASKS: Final[Mapping[str, str]] = {"clip": "Smart Search", "facial-recognition": "Faces", "ocr": "OCR"}

EXPORTS: Final[Mapping[str, str]] = {
    "clip": "immich-triton export clip",
    "facial-recognition": "immich-triton export faces",
    "ocr": "immich-triton export ocr",
}


def machine(
    shared_memory: Path = Path("/dev/shm"),  # noqa: S108 - fixed by POSIX shm
    least_mib: int = LEAST_MIB,
    ample_mib: int = AMPLE_MIB,
) -> Iterator[Finding]:
    """Check what the embedded Triton needs; one in a container or on another machine brings its own."""
    try:
        preflight.check_platform()
    except preflight.StartError as problem:
        yield note(str(problem))
        return
    yield ok("this machine can run the embedded Triton")
    try:
        status = os.statvfs(shared_memory)
    except OSError as problem:
        yield error(f"{shared_memory}: {problem.strerror}", "mount a tmpfs there: tensors travel through it")
        return
    size = status.f_blocks * status.f_frsize >> 20
    complaint = "requests fail with 'Failed to increase the shared memory pool'"
    remedy = f"in a container --shm-size=1g (compose: shm_size: 1g), else mount -o remount,size=1g {shared_memory}"
    if size < least_mib:
        yield error(f"{shared_memory} has {size} MiB in all; below {least_mib} {complaint}", remedy)
    elif size < ample_mib:
        yield warning(
            f"{shared_memory} has {size} MiB in all: enough for OCR, but with more models {complaint}", remedy
        )
    else:
        yield ok(f"{shared_memory} has {size} MiB")


def models(folder: Path, found: list[RouteTable]) -> Iterator[Finding]:
    """Check the model repository; puts the route table, when there is one, into *found*."""
    try:
        table = load_routes(folder)
    except RouteError as problem:
        yield error(str(problem), "then start the gateway again: it refuses such a repository")
        return
    found.append(table)
    elsewhere = _only_routes(folder, table)
    if elsewhere:
        yield note("only routes lie here: the models are on Triton's machine")
    for route in table.routes:
        names = ", ".join(route.names)
        if route.untrained:
            yield warning(f"{route.task} {names}: random weights", f"made for tests; export with {EXPORTS[route.task]}")
        else:
            yield ok(f"{route.task} {names}")
        for model in sorted({model for pipeline in route.pipelines for model in pipeline.all_models}):
            if not elsewhere and (missing := preflight.missing_files(folder / model)):
                yield error(f"{model}: {missing}", "make the model, then start Triton again")
    for task, script in EXPORTS.items():
        if not any(route.task == task for route in table.routes):
            yield note(f"{TASKS[task]} is not routed: it stays with the stock ML ({script} would change that)")


def _only_routes(folder: Path, table: RouteTable) -> bool:
    """Whether of the networks nothing lies here but the routes, copied to be beside a gateway alone.

    Pipelines say nothing: in a clone they are there.
    """
    networks = {model for pipeline in table.pipelines() for model in pipeline.models}
    return bool(networks) and all({file.name for file in (folder / one).glob("*")} <= {ROUTE} for one in networks)


def asleep(run_dir: Path) -> Mapping[str, State]:
    """Return the states of the models whose supervisor runs in *run_dir*; none where nobody says any."""
    try:
        return model_states.ask(run_dir / model_states.NAME).models
    except (OSError, ValueError):
        return {}


def triton(url: str, table: RouteTable, key: str = "", states: Mapping[str, State] | None = None) -> Iterator[Finding]:
    """Check that Triton runs and has every model that the routes need ready. *key* is for one that asks for it.

    *states* is what its supervisor says of them, see `asleep`.
    """
    known = states or {}
    start = (
        "start it with immich-triton run, or say where it is: --triton URL (option immich_triton_url of the gateway)"
    )
    headers = triton_wire.key_headers(key)
    try:
        about = bounded_http.ask("GET", url + triton_wire.ABOUT, headers=headers).json()
    except requests.Timeout:
        yield error(
            f"Triton at {url} does not answer within {bounded_http.SECONDS:g} s: it hangs, or is not reached",
            "immich-triton run ends one that hangs after a minute and starts another; else start it again, see its log",
        )
        return
    except (requests.RequestException, ValueError) as problem:
        yield error(f"no Triton answers at {url}: {cause(problem)}", start)
        return
    if not isinstance(about, dict) or "version" not in about:
        yield error(f"what answers at {url} is no Triton", start)
        return
    yield ok(f"{about.get('name')} {about.get('version')} answers at {url}")
    reasons = _reasons(url, headers)
    if reasons is None:
        yield _locked(url, given=bool(key))
    for model in sorted({model for pipeline in table.pipelines() for model in pipeline.all_models}):
        try:
            ready = bounded_http.ask("GET", url + triton_wire.ready(model), headers=headers).ok
        except requests.RequestException as problem:
            yield error(f"Triton does not say whether {model} is ready: {cause(problem)}", "see Triton's log")
            return  # it would be the same with each of them, and take as long
        if ready:
            yield ok(f"{model} is ready")
        elif known.get(model) in model_states.RESTING:
            doing = "asleep, until somebody asks" if known[model] == "asleep" else "being loaded: somebody asks for it"
            yield ok(f"{model} is {doing} (--idle-unload)")
        else:
            why = "Triton does not say why" if reasons is None else reasons.get(model, "Triton does not know it")
            yield error(f"{model} is not ready: {why}", "see Triton's log; does it serve the repository checked above?")


def _locked(url: str, *, given: bool) -> Finding:
    if given:
        return error(f"Triton at {url} does not accept this key", "give the one it was started with: --triton-key")
    return warning(
        f"Triton at {url} wants a key for inference and for what it has loaded",
        "--triton-key file:PATH or env:NAME; the gateway needs it as immich_triton_key",
    )


def _reasons(url: str, headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return what Triton says about models that are not ready; None when it wants another key."""
    try:
        answer = bounded_http.ask("POST", url + triton_wire.INDEX, json={}, headers=headers)
        if answer.status in (requests.codes.unauthorized, requests.codes.forbidden):
            return None
        listed: list[dict[str, Any]] = answer.json() if answer.ok else []
        return {model["name"]: model.get("reason") or model.get("state", "") for model in listed}
    except (requests.RequestException, ValueError, LookupError, TypeError, AttributeError):
        return {}


def gateway(url: str) -> Iterator[Finding]:
    """Check that the gateway answers, is ready, and reaches the stock ML. *url* has no trailing slash."""
    start = "start it with immich-triton run, or say where it is: --url URL"
    try:
        answer = bounded_http.ask("GET", f"{url}/ping")
    except requests.RequestException as problem:
        yield error(f"nothing answers at {shown(url)}: {cause(problem)}", start)
        return
    match who_answers(f"{url}/ping"):
        case "stranger":
            yield error(f"what answers at {shown(url)} is not the gateway", start)
            return
        case "locked":
            root = urljoin(url, "/")
            what = "a token" if f"{url}/" == root else "another token than this"
            yield error(
                f"the gateway at {shown(url)} wants {what} ({TOKEN})",
                f"add it to the address: --url {root}TOKEN; Immich's machine learning URL is then {root}TOKEN/",
            )
            return
    if answer.ok:
        yield ok(f"the gateway answers at {shown(url)}; every route is ready")
    else:
        yield error(
            f"the gateway at {shown(url)} is not ready: {detail(answer)}", "Immich gets 503 until then; see above"
        )
    try:
        through = bounded_http.ask("GET", f"{url}/")
    except requests.RequestException as problem:
        yield error(f"{shown(url)} does not answer: {cause(problem)}", "see the gateway's log")
        return
    if through.ok:
        yield ok("the stock ML answers behind it: what is not routed passes through")
    else:
        yield warning(
            f"the stock ML behind the gateway does not answer: {detail(through)}",
            "what is not routed gets 502: start the stock ML or correct --upstream; fine if all is routed",
        )


def who_answers(ping: str) -> Literal["gateway", "locked", "stranger"]:
    """Tell who answers at *ping*, the address of a ``/ping``.

    Our gateway returns the request id that it is given; with 404, when the path lacks its token. A stranger is also
    who does not answer at all.
    """
    mark = f"doctor-{secrets.token_hex(4)}"
    try:
        answer = bounded_http.ask("GET", ping, headers={"X-Request-ID": mark})
    except requests.RequestException:
        return "stranger"
    if answer.headers.get("X-Request-ID") != mark:
        return "stranger"
    return "locked" if answer.status == requests.codes.not_found else "gateway"


def immich(server: Immich, table: RouteTable, state_dir: Path) -> Iterator[Finding]:
    """Check what Immich asks for, and whom."""
    try:
        version = asyncio.run(server.version())
        yield ok(f"Immich {version}")
        settings = asyncio.run(server.ml_settings())
        urls, names = settings.urls, settings.models
    except ImmichError as problem:
        yield error(str(problem), _way_in(problem))
        return
    except (LookupError, TypeError, ValueError, AttributeError) as problem:
        yield error(
            f"what answers there says something else than Immich does ({problem!r})",
            "--immich http://immich-server:2283, Immich 2.2 or later",
        )
        return
    yield from addresses(urls, version, routes_clip=any(route.task == "clip" for route in table.routes))
    for task, title in TASKS.items():
        if task in names:
            yield from _asked(task, names[task], table, state_dir)
        else:
            yield note(f"{title} is switched off in Immich")


def _way_in(problem: ImmichError) -> str:
    """Return what makes Immich answer, after what it said."""
    keys = "Immich, Account Settings, API Keys"
    if problem.permission:
        return f"{keys}: give an administrator's key the permission {problem.permission}, or make one that has it"
    if problem.status == UNAUTHORIZED:
        return f"{keys}: make one as an administrator, and put it into IMMICH_API_KEY"
    return "--immich http://immich-server:2283, where the Immich server answers"


def addresses(urls: tuple[str, ...], version: str, *, routes_clip: bool) -> Iterator[Finding]:
    """Check an Immich's list of machine-learning URLs: the gateway must be in it, and nothing else."""
    where = "Administration, Settings, Machine Learning"
    only = f"{where}: make the gateway the only URL"
    # As Immich puts them together: 3.0 and later relative to the URL, before that at the root of the server.
    ping = "ping" if int(version.partition(".")[0]) >= FIRST_WITH_PATH else "/ping"
    found = {url: who_answers(urljoin(url, ping)) for url in urls}
    ours = [url for url, who in found.items() if who != "stranger"]
    others = [url for url, who in found.items() if who == "stranger"]
    if reached := [shown(url) for url, who in found.items() if who == "gateway"]:
        yield ok(f"Immich asks the gateway at {', '.join(reached)}")
    for url in (url for url, who in found.items() if who == "locked"):
        yield error(
            f"Immich asks the gateway at {shown(url)} without its token ({TOKEN}): every request gets 404",
            f"{where}: {urljoin(url, '/')}TOKEN/, with the slash at the end; "
            f"it takes Immich {FIRST_WITH_PATH}.0 or later, this is {version}",
        )
    listed = ", ".join(map(shown, others))
    if ours and others:
        spoils = "whose vectors would mix with ours unnoticed" if routes_clip else "and Triton is not used"
        yield error(f"Immich also lists {listed}: whenever we answer 503 it asks there, {spoils}", only)
    elif len(others) == 1:
        yield warning(
            f"Immich asks {listed}, which cannot be told to be the gateway from here",
            f"a name of Immich's own network cannot be reached from outside; if it is not the gateway: {only}",
        )
    elif others:
        yield error(f"Immich lists {listed}, and none of them is the gateway as seen from here", only)
    elif not urls:
        yield error("Immich lists no machine-learning URL", only)


def _asked(task: str, name: str, table: RouteTable, state_dir: Path) -> Iterator[Finding]:
    """Say who answers for the model *name* that Immich is set to."""
    title, route = TASKS[task], table.find(task, name)
    dimension = dimension_of(name) if task == "clip" else None
    if route is not None:
        fits = f", {route.dimension} numbers as Immich expects" if dimension == route.dimension else ""
        yield ok(f"{title}: Immich asks for {name}, which Triton answers{fits}")
        if task == "clip" and dimension != route.dimension:
            yield error(
                f"Immich expects {dimension} numbers for {name}, the model gives {route.dimension}",
                f"export it under a name of that size: {', '.join(names_of(route.dimension)[:3]) or 'there is none'}",
            )
        return
    if task == "clip" and clean_name(name) in _owned(state_dir):
        yield error(
            f"{title}: Immich asks for {name}, which Triton answered before; it has no route now and gets 503",
            f"restore the model, or rebuild the index and run immich-triton ledger forget {name}",
        )
        return
    routed = [each for other in table.routes if other.task == task for each in other.names]
    if routed:
        adding = "--names" if task == "ocr" else "--as"
        yield warning(
            f"{title}: Immich asks for {name}, which goes to the stock ML; routed are {', '.join(routed)}",
            f"choose a routed name in Immich's settings, or export with {EXPORTS[task]} {adding} {name}",
        )
    else:
        yield note(f"{title}: Immich asks for {name}; the stock ML answers")


def _owned(state_dir: Path) -> Mapping[str, str]:
    try:
        return Ledger(state_dir).owned()
    except LedgerError:
        return {}


def detail(answer: Reply) -> str:
    """Return what an error answer of ours says, or its status where it says nothing."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status}"
