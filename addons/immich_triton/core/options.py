"""How options are declared: once each, as a field of the settings that it becomes (`ml.settings`, `proxy.settings`, …).

    @dataclass(frozen=True)
    class Settings(OptionSet):
        patience: int = option("product_patience", Integer(1, 299), 240, "Seconds that a request may take.")

What mitmproxy is told, the checks and the tables of the documentation all read that. mypy compares the type of the
field with what the kind reads.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from mitmproxy.options import Options

    from immich_triton.core.option_kinds import Kind

_OPTION: Final = "option"
"""The key of the option in the metadata of its field."""


@dataclass(frozen=True)
class Option:
    """One mitmproxy option; *shown_default* is documented where the real default depends on the machine."""

    name: str
    kind: Kind[Any]
    default: Any
    help: str
    shown_default: str = ""


def option[T](name: str, kind: Kind[T], default: Any, help: str, *, shown_default: str = "") -> T:  # noqa: A002
    """Declare a field of an `OptionSet`: the option *name*, whose *default* is given as a user would give it.

    Raises ValueError when the kind does not allow the default.
    """
    declared: T = field(
        default=kind.read(name, default),
        repr=not kind.hidden,
        metadata={_OPTION: Option(name, kind, default, help, shown_default)},
    )
    return declared


@dataclass(frozen=True)
class OptionSet:
    """A typed, checked snapshot of options. A subclass is a frozen dataclass with an `option` for each field.

    Its ``__post_init__`` checks what options have to do with each other, and raises ValueError.
    """

    @classmethod
    def read(cls, options: Options) -> Self:
        """Take the values out of mitmproxy's options. Raises ValueError with the option's name and what it allows."""
        values = {}
        for declared in fields(cls):
            one = _option_of(declared)
            values[declared.name] = one.kind.read(one.name, getattr(options, one.name))
        return cls(**values)

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """Return the declared options: those of a class itself, then those that it extends."""
        return tuple(cls._options())

    @classmethod
    def _options(cls) -> Iterator[Option]:
        declared = {one.name: one for one in fields(cls)}
        for base in cls.__mro__:
            yield from (_option_of(declared[name]) for name in inspect.get_annotations(base) if name in declared)


def _option_of(declared: Field[Any]) -> Option:
    found: Option = declared.metadata[_OPTION]
    return found
