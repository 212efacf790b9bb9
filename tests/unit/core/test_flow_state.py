"""What flows, connections and tasks carry: the table of `core.flow_state`, and that nothing is beside it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader, FlowWriter
from mitmproxy.test import tflow

import immich_triton
from immich_triton.core import flow_state
from immich_triton.core.flow_state import TABLE, ByClient, Field, Life, Row, by_task, forget
from immich_triton.proxy.flow_kind import kind_of, may_go_upstream, release, set_kind

ADDONS = Path(immich_triton.__file__).parent.parent
WRITES = {"set", "drop"}
BY_KEY = {"get", "pop", "setdefault"}
SAVED: dict[str, object] = {
    "immich_owner": "the gateway of that day",
    "immich_kind": "predict",
    "immich_released": True,
    "immich_request_id": "0123456789abcdef",
    "immich_routes": "ocr PP-OCRv5_mobile → ocr",
    "immich_fell_back": True,
    "immich_fault": "Unavailable",
    "immich_written": "503 immich-triton is stopping",
    "immich_comparison": "comparison with http://127.0.0.1:3003",
    "immich_site": "hybrid: 300 CLIP + 12 OCR → page 1",
}
"""The names in files of flows. They stay: people keep such files."""


# The table and the code


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Yield every module but the table's own."""
    for path in ADDONS.rglob("*.py"):
        if path != Path(flow_state.__file__):
            yield path, ast.parse(path.read_text())


def constants() -> dict[str, Row]:
    return {name: value for name, value in vars(flow_state).items() if isinstance(value, Row)}


def entry_of(node: ast.AST) -> str:
    """Return X of ``flow_state.X`` where that is an entry of the table, else nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "flow_state":
        return node.attr if node.attr in constants() else ""
    return ""


def strays(tree: ast.Module) -> Iterator[str]:
    """Yield what a module carries along past the table."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="metadata", value=value) if id(node) not in called and not is_dataclass_field(
                value
            ):
                yield f"line {node.lineno}: metadata of a flow"
            case ast.ImportFrom(module="contextvars", names=names) if any(name.name == "ContextVar" for name in names):
                yield f"line {node.lineno}: a variable of the task"
            case ast.ImportFrom(module=str(module), names=names) if module.endswith("flow_state"):
                for name in names:
                    if name.name in constants():
                        yield f"line {node.lineno}: {name.name} by itself: say flow_state.{name.name}"
            case ast.Subscript(slice=key) if is_id(key):
                yield f"line {node.lineno}: a dictionary by client or flow"
            case ast.Call(func=ast.Attribute(attr=method), args=[key, *_]) if method in BY_KEY and is_id(key):
                yield f"line {node.lineno}: a dictionary by client or flow"


def is_dataclass_field(node: ast.AST) -> bool:
    """Whether an expression is the declaration of an option (`core.options`), whose metadata is another one."""
    return isinstance(node, ast.Name) and node.id == "declared"


def is_id(node: ast.AST) -> bool:
    """Whether an expression is the id of a client or a flow."""
    match node:
        case ast.Attribute(attr="id", value=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in ("client", "client_conn", "flow")
    return False


@pytest.mark.parametrize(
    "planted",
    [
        "flow.metadata['immich_other'] = 1",
        "flow.metadata.get('immich_other')",
        "from contextvars import ContextVar",
        "from immich_triton.core.flow_state import ROUTES",
        "from immich_triton.core.flow_state import ByClient, ROUTES",
        "self._all[client.id] = 1",
        "self._all.setdefault(flow.client_conn.id, set())",
        "self._all.pop(flow.id, None)",
    ],
)
def test_what_goes_past_the_table_is_found(planted: str) -> None:
    assert list(strays(ast.parse(planted)))


def test_nothing_goes_past_the_table() -> None:
    found = [(path.stem, stray) for path, tree in modules() for stray in strays(tree)]
    assert [module for module, _ in found] == ["wire"], found  # mitmproxy's own dictionary of connections
    assert found[0][1].endswith("a dictionary by client or flow")


def test_every_entry_is_written_by_its_owner_alone_and_read_by_somebody() -> None:
    users, writers, readers = (defaultdict[str, set[str]](set) for _ in range(3))
    for path, tree in modules():
        for node in ast.walk(tree):
            if name := entry_of(node):
                users[name].add(path.stem)
            match node:
                case ast.Call(func=ast.Attribute(attr=method, value=value)) if name := entry_of(value):
                    (writers if method in WRITES else readers)[name].add(path.stem)
    for name, row in constants().items():
        if isinstance(row, Field):
            assert writers[name] == {row.owner}, name
            assert readers[name], name
        else:  # in the owner's hands, and read through its functions
            assert users[name] == {row.owner}, name


def test_the_table_is_whole() -> None:
    assert len(set(TABLE)) == len(TABLE)
    assert set(TABLE) == set(constants().values())
    assert all(row.about.endswith(".") for row in TABLE)
    saved = [row.name for row in TABLE if isinstance(row, Field)]
    assert sorted(saved) == sorted(SAVED)
    assert all(row.life in (Life.FLOW, Life.SENDING) for row in TABLE if isinstance(row, Field))
    assert all(row.life in (Life.CONNECTION, Life.TASK) for row in TABLE if not isinstance(row, Field))


# What is saved with a flow


def fields() -> dict[str, Field[Any]]:
    return {row.name: row for row in TABLE if isinstance(row, Field)}


def loaded_from(path: Path) -> HTTPFlow:
    with path.open("rb") as file:
        (flow,) = FlowReader(file).stream()
    assert isinstance(flow, HTTPFlow)
    return flow


def test_a_file_of_flows_is_read_as_it_was_written(tmp_path: Path) -> None:
    flow = tflow.tflow(resp=True)
    flow.metadata |= SAVED
    with (tmp_path / "flows").open("wb") as file:
        FlowWriter(file).add(flow)
    loaded = loaded_from(tmp_path / "flows")
    assert {name: field.get(loaded) for name, field in fields().items()} == SAVED
    assert kind_of(loaded, "the gateway of that day") == "predict"
    assert kind_of(loaded, "the gateway of today") is None


def test_what_was_never_written_has_its_default() -> None:
    flow = tflow.tflow()
    assert {field.get(flow) for field in fields().values()} == {"", False}
    assert flow.metadata == {}


def test_what_somebody_else_wrote_under_our_name_is_not_taken() -> None:
    flow = tflow.tflow()
    flow.metadata |= dict.fromkeys(SAVED, 7)
    assert {field.get(flow) for field in fields().values()} == {"", False}


def test_only_a_flow_that_is_sent_again_forgets_the_last_time() -> None:
    flow = tflow.tflow()
    flow.metadata |= SAVED | {"of another addon": 1}
    flow.live = False  # as one from a file is
    forget(flow)
    assert flow.metadata == SAVED | {"of another addon": 1}
    flow.live = True
    forget(flow)
    kept = ("immich_owner", "immich_kind", "immich_released", "immich_request_id")
    assert flow.metadata == {name: SAVED[name] for name in kept} | {"of another addon": 1}


def test_a_field_is_written_and_dropped() -> None:
    flow = tflow.tflow()
    field = Field("x", "test_flow_state", Life.FLOW, "A test.", default="")
    field.set(flow, "value")
    assert field.get(flow) == flow.metadata["x"] == "value"
    for _ in range(2):
        field.drop(flow)
        assert field.get(flow) == ""


# The kind of a flow


def test_a_kind_counts_for_the_gateway_that_gave_it() -> None:
    flow = tflow.tflow()
    assert kind_of(flow, "one") is None
    assert not may_go_upstream(flow)
    set_kind(flow, "one", "predict")
    assert kind_of(flow, "one") == "predict"
    assert kind_of(flow, "another") is None
    assert not may_go_upstream(flow)


def test_what_is_released_goes_upstream_until_it_is_looked_at_again() -> None:
    flow = tflow.tflow()
    set_kind(flow, "one", "predict")
    release(flow)
    assert may_go_upstream(flow)
    set_kind(flow, "one", "predict")
    assert not may_go_upstream(flow)
    set_kind(flow, "one", "pass")
    assert may_go_upstream(flow)


def test_a_kind_that_is_none_of_ours_is_none() -> None:
    flow = tflow.tflow()
    set_kind(flow, "one", "pass")
    flow.metadata["immich_kind"] = "of another version"
    assert kind_of(flow, "one") is None
    assert not may_go_upstream(flow)


# What is in memory


def test_a_connection_has_its_own_value_until_that_is_taken() -> None:
    one, other = tflow.tclient_conn(), tflow.tclient_conn()
    other.id = "another"
    sets = ByClient[set[int]](flow_state.WORK, lambda _client: set())
    assert sets.get(one) is None
    sets.of(one).add(1)
    sets.of(other).add(2)
    assert sets.of(one) == sets.get(one) == {1}
    assert list(sets) == [{1}, {2}]
    for _each in sets:
        sets.pop(other)  # a loop is not disturbed
    assert list(sets) == [{1}]
    assert sets.pop(one) == {1}
    assert sets.pop(one) is None


def test_what_holds_a_value_fits_its_life() -> None:
    with pytest.raises(ValueError, match="immich_request_id does not live as long as a connection"):
        ByClient[int](flow_state.CURRENT_ID, lambda _client: 0)
    with pytest.raises(ValueError, match="work does not live as long as a task"):
        by_task(flow_state.WORK)
    assert by_task(flow_state.CURRENT_ID).get() == ""
