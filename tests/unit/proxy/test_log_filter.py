"""What mitmproxy itself would log of images; what reaches logs, metrics and files in a real run: test_privacy.py."""

from __future__ import annotations

import logging
import tracemalloc

import pytest
from mitmproxy.test import tflow
from places import DATA

from immich_triton.ml.service import Service
from immich_triton.proxy.privacy import Privacy

RECEIPT = (DATA / "images" / "zh_receipt.jpg").read_bytes()


def test_what_mitmproxy_quotes_is_filtered_in_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    """The filter took 155 bytes for each one that it dropped: an endless head of the upstream was the end."""
    quoted = repr(RECEIPT * 50)
    log = logging.getLogger("mitmproxy.proxy.server")
    privacy = Privacy(Service())
    flow = tflow.tflow(err=True)
    assert flow.error
    flow.error.msg = f"unexpected server response: {quoted}"
    log.addFilter(privacy._filter)
    tracemalloc.start()
    try:
        privacy.error(flow)
        log.warning("Unexpected data from server: %s", quoted)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(quoted)  # what other threads do counts too
    finally:
        tracemalloc.stop()
        log.removeFilter(privacy._filter)
    assert flow.error.msg == "unexpected server response: …"
    assert caplog.messages == ["Unexpected data from server: …"]
