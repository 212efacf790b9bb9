"""A double of the Immich server for the site: a real HTTP server that answers in the shapes of real ones.

Immich itself (Node, PostgreSQL, Redis) cannot be installed where the tests run. The shapes are those that were recorded
from 2.7.5 and 3.1.0, and for 3.2 those of its request types: keys of a photo, error bodies, paging, defaults, ranges,
what is ignored, who gets 401, 403 or 400. Its text search is Immich's: pairs of ideographs, any half of the words.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import WSMsgType, web
from background_loop import in_background
from immich_photos import KEY, OTHER_KEY, WEAK_KEY, Photo, finds, photo_id, user_id

SCRIPT: Final = b"\x1b\x07\x00\xf8" + b"brotli, as built" * 300
"""Bytes of a script that was compressed when the web app was built: to be passed on as they are."""
PAGE: Final = (
    b'<!doctype html><html><head><link rel="stylesheet" href="/custom.css" /></head><body>Immich</body></html>'
)
PICTURE: Final = bytes(range(256)) * 4096
OWN_JOBS: Final = ("refresh-faces", "refresh-metadata", "regenerate-thumbnail", "transcode-video")
UNKNOWN_TO_SMART: Final = ("id", "description", "originalFileName", "checksum", "order", "withPeople")


@dataclass(frozen=True)
class File:
    """What the web app is made of, as it is sent."""

    body: bytes
    kind: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    chunked: bool = False
    """Whether it is sent without its length."""


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        """Return the body."""
        return json.loads(self.body)


@dataclass
class ImmichSite:
    """Set the fields at any time. *by_picture* gives the order of a query; else the oldest photo comes first."""

    version: str = "2.7.5"
    url: str = ""
    photos: list[Photo] = field(default_factory=list)
    by_picture: dict[str, list[int]] = field(default_factory=dict)
    ml_is_down: bool = False
    slow: dict[str, float] = field(default_factory=dict)
    """Seconds that requests take, by a piece of their path."""
    held: set[str] = field(default_factory=set)
    """Pieces of paths: requests to them get no answer until they are taken out of here."""
    failing: dict[str, int] = field(default_factory=dict)
    """Statuses that requests get, by a piece of their path."""
    broken_searches: bool = False
    """Whether searches are answered in a shape that no Immich has."""
    refuse_ids: bool = False
    """Whether a metadata search with ``id`` gets 400."""
    lacking: set[str] = field(default_factory=set)
    """Permissions that `WEAK_KEY` has not."""
    jobs: list[tuple[str, str]] = field(default_factory=list)
    """Names of Immich's own jobs that were ordered, and of jobs that were taken from its queues; with the photo."""
    albums: dict[str, str] = field(default_factory=dict)
    """Names by id."""
    album_members: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    uploads: list[tuple[int, str]] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    """What there is beside `PAGE` and `SCRIPT`, by path."""

    @property
    def new(self) -> bool:
        """Whether it understands ``filter``."""
        return self.version >= "3.2"

    @property
    def _correlation(self) -> str:
        return "x-immich-cid" if self.version < "3" else "X-Correlation-ID"

    def of(self, piece: str) -> list[Seen]:
        """Return the requests to paths with *piece*."""
        return [request for request in self.seen if piece in request.target]

    def application(self) -> web.Application:
        """Return what to serve."""
        app = web.Application(client_max_size=1 << 40)
        routes: dict[tuple[str, str], Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            ("POST", "/api/search/smart"): self._smart,
            ("POST", "/api/search/metadata"): self._metadata,
            ("GET", "/api/assets/{id}/ocr"): self._ocr,
            ("GET", "/api/users/me"): self._me,
            ("GET", "/api/assets/{id}/original"): self._original,
            ("POST", "/api/assets"): self._upload,
            ("POST", "/api/assets/jobs"): self._order,
            ("PUT", "/api/assets/{id}"): self._change,
            ("GET", "/api/albums"): self._albums,
            ("POST", "/double/job"): self._job,
            ("GET", "/api/server/version"): self._version,
            ("GET", "/api/server/ping"): self._ping,
            ("GET", "/api/socket.io/"): self._socket,
            ("GET", "/_app/immutable/{name}"): self._script,
            ("GET", "/api/{tail:.*}"): self._unknown,
            ("GET", "/{tail:.*}"): self._page,
            ("HEAD", "/{tail:.*}"): self._page,
        }
        for (method, path), handler in routes.items():
            app.router.add_route(method, path, self._around(handler))
        return app

    def _around(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = b"" if request.path == "/api/assets" else await request.read()
            headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in request.raw_headers]
            self.seen.append(Seen(request.method, request.raw_path, headers, body))
            for piece, seconds in self.slow.items():
                if piece in request.path:
                    await asyncio.sleep(seconds)
            while any(piece in request.path for piece in self.held):  # noqa: ASYNC110 - ended by another thread
                await asyncio.sleep(0.02)
            for piece, status in self.failing.items():
                if piece in request.path:
                    return self._error(status, "Failed")
            if (file := self.files.get(request.path)) and request.method in ("GET", "HEAD"):
                if file.chunked:
                    return await self._in_chunks(request, file)
                return web.Response(
                    status=file.status, body=file.body, headers={"Content-Type": file.kind, **file.headers}
                )
            return await handler(request)

        return handle

    @staticmethod
    async def _in_chunks(request: web.Request, file: File) -> web.StreamResponse:
        response = web.StreamResponse(status=file.status, headers={"Content-Type": file.kind, **file.headers})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for at in range(0, len(file.body), 1000):
            await response.write(file.body[at : at + 1000])
        await response.write_eof()
        return response

    # Searches

    async def _smart(self, request: web.Request) -> web.StreamResponse:
        if self.broken_searches:
            return self._json({"assets": None})
        body, refusal = self._checked(request, await request.read())
        if refusal:
            return refusal
        if not (body.get("query") or "").strip():
            return self._error(400, "Either `query` or `queryAssetId` must be set")
        if self._by_link(request):
            return self._error(403, "Forbidden")
        if self.ml_is_down:
            return self._error(500, "Failed to search smart")
        mine = {photo.number: photo for photo in self.photos if photo.owner == self._caller(request)}
        order = self.by_picture.get(body["query"].strip(), sorted(mine))
        return self._results(body, [mine[number] for number in order if number in mine], default=100)

    async def _metadata(self, request: web.Request) -> web.StreamResponse:
        body, refusal = self._checked(request, await request.read())
        if refusal:
            return refusal
        owners = [self._caller(request)]
        if body.get("albumIds") and self.version >= "3":
            owners += [member for album in body["albumIds"] for member in self.album_members.get(album, ())]
        photos = [photo for photo in self.photos if photo.owner in owners]
        if "id" in body and self.refuse_ids:
            return self._error(400, "Not found or no asset.read access")
        if "id" in body:
            photos = [photo for photo in photos if photo.id == body["id"]]
        if self.new and (named := body.get("filter", {}).get("id")):
            photos = [photo for photo in photos if photo.id == named["eq"]]
        if "visibility" in body:
            photos = [photo for photo in photos if photo.visibility == body["visibility"]]
        if "takenBefore" in body:
            photos = [photo for photo in photos if photo.taken <= body["takenBefore"]]
        photos.sort(key=lambda photo: photo.number, reverse=True)
        if self.version < "3" and len(self.seen) % 2:
            photos.reverse()  # there is no order among those of the same time
        return self._results(body, sorted(photos, key=lambda photo: photo.taken, reverse=True), default=250)

    def _results(self, body: dict[str, Any], photos: list[Photo], *, default: int) -> web.StreamResponse:
        filters = body.get("filter") if self.new else None
        text = (filters or {}).get("ocr", {}).get("matches") if filters is not None else body.get("ocr")
        favorite = (filters or {}).get("isFavorite", {}).get("eq") if filters is not None else body.get("isFavorite")
        albums = None if filters is not None else body.get("albumIds")
        hits = [
            photo
            for photo in photos
            if (not text or (not photo.emptied and finds(text, photo.lines)))
            and (favorite is None or photo.favorite == favorite)
            and (not albums or set(albums) & set(photo.albums))
        ]
        size, page = body.get("size", default), body.get("page", 1)
        begin, end = (page - 1) * size, page * size
        items = [photo.as_json(exif=bool(body.get("withExif"))) for photo in hits[begin:end]]
        assets: dict[str, Any] = {"total": len(items), "count": len(items), "items": items, "facets": []}
        assets["nextPage"] = str(page + 1) if len(hits) > end and filters is None else None
        if self.new:
            assets["nextCursor"] = f"cursor-{end}" if len(hits) > end and filters is not None else None
        return self._json({"albums": {"total": 0, "count": 0, "items": [], "facets": []}, "assets": assets})

    def _checked(self, request: web.Request, raw: bytes) -> tuple[dict[str, Any], web.StreamResponse | None]:
        """Return the body, or the refusal of it: login, then form."""
        if self._caller(request) == "" and not self._by_link(request):
            return {}, self._error(
                401, "Invalid API key" if "x-api-key" in request.headers else "Authentication required"
            )
        body = json.loads(raw)
        size, page = body.get("size", 100), body.get("page", 1)
        if not isinstance(size, int) or not 1 <= size <= 1000:
            return body, self._invalid("size", "Too big: expected number to be <=1000")
        if not isinstance(page, int) or page < 1:
            return body, self._invalid("page", "Too small: expected number to be >=1")
        flat = set(body) - {
            "query",
            "language",
            "size",
            "withExif",
            "withPeople",
            "withStacked",
            "filter",
            "queryAssetId",
        }
        if self.new and "filter" in body and flat - {"orderBy", "cursor"}:
            return body, self._invalid(min(flat), f"Deprecated field {min(flat)} cannot be combined with filter")
        return body, None

    def _caller(self, request: web.Request) -> str:
        """Return whose photos are asked for: by key, session or key in the query string; empty for nobody."""
        cookie = re.search(r"immich_access_token=([^;]+)", request.headers.get("cookie", ""))
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.headers.get("x-api-key") or request.query.get("apiKey") or (cookie[1] if cookie else bearer)
        return KEY if given == WEAK_KEY else given if given in (KEY, OTHER_KEY) else ""

    @staticmethod
    def _by_link(request: web.Request) -> bool:
        return "key" in request.query or "x-immich-share-key" in request.headers

    async def _ocr(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._may_not(request, "asset.read"):
            return refusal
        photo = self._photo(request.match_info["id"])
        if photo is None or photo.owner != self._caller(request) or photo.locked:
            return self._error(400, "Not found or no asset.read access")
        lines = [(line, True) for line in photo.lines] + [(line, False) for line in photo.hidden_lines]
        corners = dict.fromkeys(("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"), 0.5)
        rows = [
            {"id": str(uuid.uuid5(uuid.UUID(photo.id), f"{photo.read} {at}")), "assetId": photo.id}
            | {**corners, "boxScore": 0.9, "textScore": 0.9, "text": line, "isVisible": visible}
            for at, (line, visible) in enumerate(lines)
        ]
        return self._json(rows)

    # Jobs

    async def _change(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._may_not(request, "asset.update"):
            return refusal
        try:
            wanted = uuid.UUID(request.match_info["id"])
        except ValueError:
            return self._invalid("id", "Invalid UUID")
        photo = self._photo(str(wanted))
        if photo is None or photo.owner != self._caller(request) or photo.locked:
            return self._error(400, "Not found or no asset.update access")
        return self._json(photo.as_json(exif=True))

    async def _order(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._may_not(request, "job.create"):
            return refusal
        body = await request.json()
        if body.get("name") not in OWN_JOBS:
            return self._invalid("name", "Invalid option: expected one of " + "|".join(OWN_JOBS))
        photos = [self._photo(one) for one in body["assetIds"]]
        if not all(photo and photo.owner == self._caller(request) and not photo.locked for photo in photos):
            return self._error(400, "Not found or no asset.update access")
        self.jobs += [(body["name"], one) for one in body["assetIds"]]
        return web.Response(status=204, headers={self._correlation: "abc123"})

    async def _job(self, request: web.Request) -> web.StreamResponse:
        """Do a job that `immich_queues` took from a queue; say whether it succeeded."""
        job = await request.json()
        name, photo = job["name"], self._photo(job["data"]["id"])
        self.jobs.append((name, job["data"]["id"]))
        succeeded = photo is not None and (name == "AssetDetectDuplicates" or not self.ml_is_down)
        if photo and succeeded:
            if name == "Ocr":
                photo.read += 1
                photo.lines, photo.lost, photo.emptied = photo.lost or photo.lines, (), False
            photo.embedded += name == "SmartSearch"
        return web.json_response({"succeeded": succeeded})

    def _photo(self, wanted: str) -> Photo | None:
        return next((photo for photo in self.photos if photo.id == wanted.lower()), None)

    def _may_not(self, request: web.Request, permission: str) -> web.StreamResponse | None:
        """Return the refusal of who has no login, or a key without *permission*; a shared link has none of ours."""
        if self._by_link(request):
            return self._error(403, "Forbidden")
        if self._caller(request) == "":
            return self._error(401, "Invalid API key" if "x-api-key" in request.headers else "Authentication required")
        if request.headers.get("x-api-key") == WEAK_KEY and permission in self.lacking:
            return self._error(403, f"Missing required permission: {permission}")
        return None

    # Who and what there is

    async def _me(self, request: web.Request) -> web.StreamResponse:
        return self._may_not(request, "user.read") or self._json(
            {"id": user_id(self._caller(request)), "name": "somebody"}
        )

    async def _albums(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._may_not(request, "album.read"):
            return refusal
        mine = not request.query.get("shared")
        return self._json([{"id": one, "albumName": name} for one, name in self.albums.items() if mine])

    # The rest of the site

    async def _original(self, request: web.Request) -> web.StreamResponse:
        headers = {"Accept-Ranges": "bytes", "ETag": '"the-picture"', "Cache-Control": "private, max-age=86400"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", "")):
            begin, end = int(wanted[1]), int(wanted[2]) + 1
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(PICTURE)}"
            return web.Response(status=206, body=PICTURE[begin:end], content_type="image/jpeg", headers=headers)
        return web.Response(body=PICTURE, content_type="image/jpeg", headers=headers)

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("x-api-key") != KEY:
            return self._error(401, "Invalid API key")  # at once: Immich does not read the file first either
        digest, size = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            size += len(chunk)
        self.uploads.append((size, digest.hexdigest()))
        return self._json({"id": photo_id(size), "status": "created"}, 201)

    async def _ping(self, _request: web.Request) -> web.StreamResponse:
        return self._json({"res": "pong"})

    async def _version(self, _request: web.Request) -> web.StreamResponse:
        return self._json(dict(zip(("major", "minor", "patch"), map(int, self.version.split(".")), strict=True)))

    @staticmethod
    async def _socket(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str('0{"sid":"1","pingInterval":25000}')
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket

    @staticmethod
    async def _script(_request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "br", "Cache-Control": "public,max-age=31536000,immutable", "ETag": 'W/"1"'}
        return web.Response(body=SCRIPT, content_type="text/javascript", headers=headers)

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        return self._error(404, f"Cannot GET {request.path}")

    @staticmethod
    async def _page(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=PAGE, content_type="text/html", headers={"Cache-Control": "no-store", "ETag": '"page"'}
        )

    # Answers

    def _json(self, content: Any, status: int = 200) -> web.Response:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        headers = {self._correlation: "abc123", "ETag": f'"{hashlib.sha256(text.encode()).hexdigest()[:12]}"'}
        headers["Vary"] = "Accept-Encoding"
        response = web.Response(status=status, text=text, content_type="application/json", headers=headers)
        if len(text) > 1024:
            response.enable_compression()
        return response

    def _error(self, status: int, message: Any) -> web.Response:
        body: dict[str, Any] = {"message": message}
        if self.version < "3":
            body |= {"error": "Error", "statusCode": status, "correlationId": "abc123"}
        return self._json(body, status)

    def _invalid(self, name: str, message: str) -> web.Response:
        if self.version < "3":
            return self._error(400, [f"[{name}] {message}"])
        return self._json({"message": "Validation failed", "errors": [{"path": [name], "message": message}]}, 400)


@contextmanager
def running_site(**settings: Any) -> Iterator[ImmichSite]:
    """Run the double on a free port."""
    site = ImmichSite(**settings)
    with in_background(site.application()) as url:
        site.url = url
        yield site
