"""Immich's machine-learning tasks."""

from __future__ import annotations

from immich_triton.immich.api import QUEUES, SECTIONS
from immich_triton.immich.ml_client import ENTRIES
from immich_triton.immich.task_types import KNOWN_TYPES


def test_all_that_is_known_of_tasks_is_of_the_same_ones() -> None:
    assert KNOWN_TYPES.keys() == QUEUES.keys() == SECTIONS.keys()
    assert {task for entries in ENTRIES.values() for task in entries} == KNOWN_TYPES.keys()


def test_what_immich_sends_has_known_types_in_their_order() -> None:
    for entries in ENTRIES.values():
        for task, types in entries.items():
            assert [type_ for type_ in KNOWN_TYPES[task] if type_ in types] == list(types)
    assert all(len(set(types)) == len(types) == 2 for types in KNOWN_TYPES.values())
