"""The documentation cannot rot: what the code offers stands in the README, and the other way round."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import document_options
import pytest

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")


def test_the_tables_of_options_are_those_of_the_code() -> None:
    assert document_options.updated(README) == README, "run: python scripts/document_options.py"


@pytest.mark.parametrize(("name", "parser"), [*document_options.programs()], ids=lambda value: str(value)[:20])
def test_every_option_of_every_program_has_a_help_text(name: str, parser: argparse.ArgumentParser) -> None:
    assert parser.description
    for action in parser._actions:
        assert action.help, f"{name}: {action.option_strings or action.dest} has no help text"


def test_what_a_help_text_says_of_the_default_moves_to_its_own_column() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default=8000, help="where it listens (default: %(default)s)")
    parser.add_argument("--room", default=256, help="MiB at least (default: %(default)s, enough for OCR)")
    parser.add_argument("--threads", default=4, help="share of the machine (default: all cores)")
    parser.add_argument("--folder", help="for logs (default: .run/<port>)")
    parser.add_argument("--task", choices=("ocr", "clip"), default="ocr", help="at 100 %%")
    assert [*document_options._rows(parser)] == [
        "| `--port` | `8000` | where it listens |",
        "| `--room` | `256` | MiB at least (enough for OCR) |",
        "| `--threads` | all cores | share of the machine |",
        "| `--folder` | `.run/<port>` | for logs |",
        "| `--task ocr\\|clip` | `ocr` | at 100 % |",
    ]


def test_every_make_variable_and_target_is_documented() -> None:
    for variable in re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE):
        assert f"`{variable}`" in README, variable
    for target in re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE):
        assert f"`make {target}" in README or f"`{target}`" in README or f"make {target}\n" in README, target


def test_every_file_that_the_readme_links_exists() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", README):
        assert (PROJECT / target).exists(), target


def test_the_project_names_no_package_host_and_no_path_of_a_machine() -> None:
    hosts = ("pypi" + ".org", "files." + "pythonhosted", "registry." + "npmjs", "deb." + "debian.org")
    for path in [*PROJECT.glob("*.lock"), *PROJECT.glob("*.md"), *PROJECT.glob("scripts/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [host for host in hosts if host in text], path
