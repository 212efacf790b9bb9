"""Write the tables of options in docs/reference.md, web.md and mt-photos.md from the code; --check only compares."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from immich_triton.cli.main import COMMANDS
from immich_triton.core.options import Option
from immich_triton.core.paths import PROJECT
from immich_triton.ml import settings
from immich_triton.mt_photos import settings as mt_photos_settings
from immich_triton.web import settings as web_settings

REFERENCE = PROJECT / "docs/reference.md"
WEB = PROJECT / "docs/web.md"
MT_PHOTOS = PROJECT / "docs/mt-photos.md"


class _Captured(Exception):  # noqa: N818 - carries a parser, reports no error
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def programs() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command, then every program of the lab, with its command line."""
    for name, command in COMMANDS.items():
        yield f"immich-triton {name}", _parser_of(f"immich_triton.cli.{command.module}")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if "argparse" in path.read_text(encoding="utf-8") and path.stem not in (Path(__file__).stem, "browser"):
            yield f"scripts/lab/{path.name}", _parser_of(path.stem)


def _parser_of(module: str) -> argparse.ArgumentParser:
    def capture(self: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise _Captured(self)

    main = importlib.import_module(module).main
    with mock.patch.object(argparse.ArgumentParser, "parse_args", capture):
        try:
            main([])
        except _Captured as captured:
            return captured.parser
    raise AssertionError(f"{module} parses no command line in main()")


def options_table(options: Sequence[Option]) -> str:
    """Return the table of mitmproxy options."""
    rows = ["| option | default | allowed | what it does |", "|---|---|---|---|"]
    for one in options:
        # As one writes it: mitmproxy's own switches know no other words.
        given = str(one.default).lower() if isinstance(one.default, bool) else one.default
        default = one.shown_default or _default(given)
        rows.append(f"| `{one.name}` | {default} | {_cell(one.kind.allowed)} | {_cell(one.help)} |")
    return "\n".join(rows)


def program_tables() -> str:
    """Return one table for each program."""
    parts = []
    for name, parser in programs():
        parts.append(f"**`{name}`**: {_cell(_first_sentence(parser.description))}\n")
        parts += ["| option | default | what it does |", "|---|---|---|", *_rows(parser), ""]
    return "\n".join(parts).rstrip()


def _rows(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield f"| `{choice.dest}` | | {_cell(choice.help)} |"
                yield from _rows(action.choices[choice.dest], f"{choice.dest} ")
            continue
        shown = ", ".join(action.option_strings) or f"{prefix}{(action.metavar or action.dest)}"
        if action.choices:
            separator = " " if action.option_strings else ": "
            shown = f"{shown}{separator}{'|'.join(map(str, action.choices))}"
        yield f"| `{_cell(shown)}` | {' | '.join(_default_and_help(action))} |"


def _default_and_help(action: argparse.Action) -> tuple[str, str]:
    """Return what stands for the default, and the help text without it.

    What the text says in its "(default: …)" counts where the value itself would say nothing, or differs by machine.
    """
    default = _default(action.default) if action.option_strings or action.nargs == "?" else ""
    text = _cell(action.help).replace("%%", "%")
    if said := re.search(r"\s*\(default: (%\(default\)s)?(?:, )?([^)]*)\)", text):
        inserted, words = said.groups()
        kept = f" ({words})" if inserted and words else ""
        text = text[: said.start()] + kept + text[said.end() :]
        if not inserted:
            literal = re.fullmatch(r"[\w./:+-]+( [0-9]+)*|.*<.*", words)
            default = f"`{words}`" if literal else words
    return default, text


def _default(value: object) -> str:
    if value is None or value is False or value == argparse.SUPPRESS or value == [] or value == "":
        return "off" if value is False else ""
    text = str(value).replace(str(PROJECT) + "/", "").replace(str(Path.home()), "~")
    return f"`{text}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _first_sentence(text: str | None) -> str:
    return re.split(r"(?<=\.)\s", " ".join((text or "").split()))[0]


def updated(reference: str) -> str:
    """Return *reference* with the generated blocks renewed. Raises ValueError when a marker is missing."""
    return _renewed(reference, {"gateway": options_table(settings.OPTIONS), "programs": program_tables()})


def updated_web(text: str) -> str:
    """Return the text of docs/web.md with its generated block renewed. Raises ValueError when a marker is missing."""
    return _renewed(text, {"web": options_table(web_settings.OPTIONS)})


def updated_mt_photos(text: str) -> str:
    """Return the text of docs/mt-photos.md with its generated block renewed. Raises ValueError like `updated_web`."""
    return _renewed(text, {"mt-photos": options_table(mt_photos_settings.OPTIONS)})


def _renewed(text: str, tables: Mapping[str, str]) -> str:
    for name, table in tables.items():
        begin, end = (
            f"<!-- {name} options: made by scripts/lab/document_options.py -->",
            f"<!-- end of {name} options -->",
        )
        if begin not in text or end not in text:
            raise ValueError(f"there is no block {begin}")
        head, rest = text.split(begin, 1)
        _, tail = rest.split(end, 1)
        text = f"{head}{begin}\n\n{table}\n\n{end}{tail}"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when a table differs")
    options = parser.parse_args(arguments)
    different = False
    for path, renew in ((REFERENCE, updated), (WEB, updated_web), (MT_PHOTOS, updated_mt_photos)):
        text = path.read_text(encoding="utf-8")
        if (fresh := renew(text)) == text:
            continue
        different = True
        if options.check:
            name = path.relative_to(PROJECT)
            print(f"{name} is out of date: run .venv/bin/python scripts/lab/document_options.py", file=sys.stderr)
        else:
            path.write_text(fresh, encoding="utf-8")
    return int(different and options.check)


if __name__ == "__main__":
    sys.exit(main())
