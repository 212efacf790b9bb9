"""Addon: shows the answers to searches as rows, one for each photo, instead of a megabyte of JSON.

In mitmweb, mitmproxy and ``mitmdump --flow-detail``. The view is made when somebody looks; nothing is logged. Answers
that were streamed through have no body to show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, override

import orjson
from mitmproxy import contentviews
from mitmproxy.contentviews import Contentview, Metadata, SyntaxHighlight
from mitmproxy.http import HTTPFlow, Response

from immich_triton.core import flow_state
from immich_triton.web.site import SEARCHES

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

PRIORITY: Final = 2.0
"""More than mitmproxy's own view of JSON claims (1)."""

SIGNS: Final = {"isFavorite": "favourite", "isTrashed": "trashed", "isOffline": "offline", "isArchived": "archived"}


class ContentViews:
    """Registers the view; mitmproxy keeps one view of a name, so a reload replaces it."""

    def load(self, _loader: Loader) -> None:
        """Add the view."""
        contentviews.add(SearchView())


class SearchView(Contentview):
    """What a search found: place, date, size, name and id of each photo."""

    name = "Immich photos"
    syntax_highlight: SyntaxHighlight = "yaml"

    @override
    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        """Claim the answers to searches."""
        flow = metadata.flow
        if not data or not isinstance(metadata.http_message, Response) or not isinstance(flow, HTTPFlow):
            return -1
        searched = flow.request.method == "POST" and flow.request.path.partition("?")[0] in SEARCHES
        return PRIORITY if searched else -1

    @override
    def prettify(self, data: bytes, metadata: Metadata) -> str:
        """Return the answer as YAML-like lines; what is no result of a search as it is."""
        try:
            lines = [*rows(orjson.loads(data))]
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            return data.decode("utf-8", "replace")
        said = flow_state.SITE.get(metadata.flow) if isinstance(metadata.flow, HTTPFlow) else ""
        return "\n".join([f"site: {said}", *lines] if said else lines)


def rows(body: Any) -> Iterator[str]:
    """Yield what a search found. Raises what the shape of *body* makes it raise, when it is another one."""
    if "assets" not in body:
        yield f"error: {_quoted(body['message'])}"
        return
    assets = body["assets"]
    items = assets["items"]
    page = f"next page {assets['nextPage']}" if assets.get("nextPage") else "no page follows"
    yield f"photos: {len(items)}, {page}"
    for place, item in enumerate(items, 1):
        signs = [word for key, word in SIGNS.items() if item.get(key)]
        if item.get("visibility") not in (None, "timeline"):
            signs.append(str(item["visibility"]))
        size = f"{item['width']} x {item['height']}" if item.get("width") and item.get("height") else ""
        parts = [
            str(item.get("localDateTime") or item.get("fileCreatedAt"))[:16],
            str(item.get("type", "")).lower(),
            size,
        ]
        yield f"  {place}: {' · '.join([_quoted(item.get('originalFileName')), *filter(None, [*parts, *signs])])}"
        yield f"     {item['id']}"


def _quoted(value: object) -> str:
    """Return any value as JSON on one line, so that a name cannot pose as structure."""
    return json.dumps(value, ensure_ascii=False)
