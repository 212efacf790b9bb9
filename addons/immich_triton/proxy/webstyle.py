"""Addon: gives the comments room in mitmweb's flow list, where they would get 150 pixels, and wraps long lines.

A style sheet of a few rules goes into mitmweb's page, by way of Tornado's output transforms. Without mitmweb there is
nothing to do; should the page change, the list merely looks as mitmproxy made it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mitmproxy import ctx
from tornado.web import OutputTransform

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader
    from tornado.httputil import HTTPHeaders

WEB_COLUMNS: Final = ("tls", "icon", "path", "method", "status", "size", "time")
"""mitmweb's own default: replaced by one with comments, unless the user chose columns."""

STYLE: Final = (
    b"<style>.flow-table .col-path{width:240px}.flow-table .col-comment{width:auto}"
    b".flow-table td.col-comment{text-align:left}"
    # A reason or a text would be cut off at the edge, and an empty line would have no height.
    b".contentview pre{white-space:pre-wrap;overflow-wrap:anywhere}.contentview pre>div:empty{height:1lh}"
    b"</style></head>"
)


class WebStyle:
    """Shows the comments, widens their column, and lets nothing of a content view be cut off."""

    def load(self, _loader: Loader) -> None:
        """Choose the columns."""
        if "web_columns" in ctx.options and tuple(ctx.options.web_columns) == WEB_COLUMNS:
            ctx.options.update(web_columns=["path", "status", "time", "comment"])

    def running(self) -> None:
        """Have the style sheet put into the page; once, however often the script is reloaded."""
        transforms = getattr(getattr(ctx.master, "app", None), "transforms", None)
        if transforms is not None and not any(each.__name__ == AddStyle.__name__ for each in transforms):
            transforms.insert(0, AddStyle)  # before the one that compresses


class AddStyle(OutputTransform):
    """Adds the style sheet to HTML pages."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Return the head and the first piece of the body with the style sheet in it."""
        if headers.get("Content-Type", "").startswith("text/html"):
            chunk = chunk.replace(b"</head>", STYLE, 1)
            if "Content-Length" in headers:
                headers["Content-Length"] = str(len(chunk))
        return super().transform_first_chunk(status_code, headers, chunk, finishing)
