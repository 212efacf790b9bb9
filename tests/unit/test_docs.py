"""The documentation cannot rot: what the code offers stands in it, its links lead somewhere, the README stays short."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import document_options
import pytest
from places import PROJECT

from immich_triton.core.option_kinds import Flag, OnOff
from immich_triton.core.options import Option

REFERENCE = (PROJECT / "docs/reference.md").read_text(encoding="utf-8")
PAGES = [
    *PROJECT.glob("deploy/**/*.md"),
    *PROJECT.glob("*.md"),
    *PROJECT.glob("docs/**/*.md"),
    *PROJECT.glob("monitoring/*.md"),
    PROJECT / "triton_models/README.md",
]
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")


def test_the_tables_of_options_are_those_of_the_code() -> None:
    assert document_options.updated(REFERENCE) == REFERENCE, "run: python scripts/lab/document_options.py"
    page = (PROJECT / "docs/mt-photos.md").read_text(encoding="utf-8")
    assert document_options.updated_mt_photos(page) == page, "run: python scripts/lab/document_options.py"


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


def test_the_default_of_a_switch_is_shown_as_it_may_be_written() -> None:
    switch = Option("a_switch", Flag(), default=False, help="what it does")
    word = Option("a_word", OnOff(), "on", "what it does")
    rows = document_options.options_table([switch, word]).splitlines()
    assert rows[2:] == [
        "| `a_switch` | `false` | true, false | what it does |",
        "| `a_word` | `on` | on, off | what it does |",
    ]


def test_every_option_that_a_page_gives_to_a_command_exists() -> None:
    known = {
        name: {option for action in parser._actions for option in action.option_strings}
        for name, parser in document_options.programs()
        if name.startswith("immich-triton ")
    }
    named = re.compile(rf"(?:{'|'.join(sorted(known, key=len, reverse=True))})(?= |$)")
    wrong = []
    for page in PAGES:
        if page.name == "CHANGELOG.md":  # it names what there was before
            continue
        # What is in quotes is for others: --options="--set …".
        text = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", "", page.read_text(encoding="utf-8"))
        for line in re.split(r"[\n`|;&]|, ", text):
            if found := named.search(line):
                given = re.findall(r"(?<=\s)--[a-z][a-z-]*", line[found.end() :].partition("#")[0])
                wrong += [f"{page.name}: {found[0]} {option}" for option in given if option not in known[found[0]]]
    assert wrong == []


def test_every_variable_of_immich_all_in_one_has_its_place() -> None:
    page = (PROJECT / "docs/from-all-in-one.md").read_text(encoding="utf-8")
    variables = {"IMMICH_API", "PORT", "MT_PHOTOS_API", "MT_PHOTOS_API_KEY", "HTTP_PORT"}
    variables |= {"CLIP_MODEL", "CLIP_DOWNLOAD_ROOT", "DEVICE"}
    rows = re.findall(r"^\| `([A-Z_]+)`", page, re.MULTILINE)
    assert sorted(rows) == sorted(variables)


def test_every_make_variable_and_target_is_documented() -> None:
    for variable in re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE):
        assert f"`{variable}`" in REFERENCE, variable
    for target in re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE):
        assert f"`make {target}`" in REFERENCE, target


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of *page*."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached = {PROJECT / "README.md"}
    new = list(reached)
    while new:
        page = new.pop()
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+\.md)", page.read_text(encoding="utf-8")):
            linked = (page.parent / target).resolve()
            if linked not in reached:
                reached.add(linked)
                new.append(linked)
    assert {page for page in PAGES if page not in reached} == set()


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


def test_the_project_names_no_package_host_and_no_path_of_a_machine() -> None:
    hosts = ("pypi" + ".org", "files." + "pythonhosted", "registry." + "npmjs", "deb." + "debian.org")
    for path in [*PROJECT.glob("*.lock"), *PAGES, *PROJECT.glob("scripts/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [host for host in hosts if host in text], path
