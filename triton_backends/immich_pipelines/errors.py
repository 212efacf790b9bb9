"""The one error that is the request's own fault."""

MARK = "bad input: "
"""Starts the text of every such error on the wire. Triton uses status 400 for its own refusals too (an unknown model,
a wrong shape); by this mark the gateway knows that the image or the text is to blame, and not the server."""


class BadInput(ValueError):  # noqa: N818 - it names the input, and reads well where it is raised
    """The image or text of one request cannot be processed; becomes ``INVALID_ARG`` and, in the gateway, a 400."""
