"""An option that mitmproxy cannot read stops the start; mitmproxy alone would go on without the script, in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gateway_process import command, ended
from recorder import recording_upstream

from harness.ports import free_ports


@pytest.mark.parametrize("program", ["mitmdump", "mitmweb"])
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (["abc"], "immich-triton: Failed to parse option immich_deadline: not an integer: abc"),
        (["20", "30"], "immich-triton: Received multiple values for immich_deadline: ['20', '30']"),
        (["9999"], "immich_deadline must lie between 1 and 299"),
    ],
)
def test_the_start_ends_with_the_reason(tmp_path: Path, program: str, values: list[str], complaint: str) -> None:
    (tmp_path / "models").mkdir()
    gateway_port, web_port = free_ports(2)
    with recording_upstream() as upstream:
        options: dict[str, Any] = {"immich_models": tmp_path / "models", "immich_state_dir": tmp_path / "state"}
        options |= {"confdir": tmp_path, "immich_metrics_listen": ""}
        if program == "mitmweb":
            options |= {"web_port": web_port, "web_open_browser": "false"}
        line = command(port=gateway_port, mode=f"reverse:{upstream.url}", program=program, **options)
        line += [f"--set=immich_deadline={value}" for value in values]
        code, printed = ended(line, tmp_path)
    assert code == 1
    assert complaint in printed
