"""The command ``immich-triton``: one table of subcommands, each imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from immich_triton import __version__
from immich_triton.cli import environment, gpu_environment


@dataclass(frozen=True)
class Command:
    """A subcommand: the *module* in `immich_triton.cli` whose ``main(arguments)`` runs it, and what it *needs*.

    *more* says what it needs with an option.
    """

    module: str
    summary: str
    needs: environment.Needs = environment.Needs.GATEWAY
    more: Mapping[str, environment.Needs] = field(default_factory=dict)

    def needed_for(self, arguments: Sequence[str]) -> environment.Needs:
        """Return what it needs when it is called with *arguments*."""
        given = {argument.partition("=")[0] for argument in arguments}
        return next((needs for option, needs in self.more.items() if option in given), self.needs)


COMMANDS: Final[dict[str, Command]] = {
    "setup": Command("setup", "install what the others need, in an environment of its own", environment.Needs.NOTHING),
    "run": Command(
        "run",
        "run the gateway and the embedded Triton together, and the site in front of the Immich server",
        environment.Needs.TRITON,
        {"--web": environment.Needs.TRITON_AND_SITE},
    ),
    "triton": Command("triton", "run the embedded Triton alone", environment.Needs.TRITON),
    "export ocr": Command("export_ocr", "make the OCR models", environment.Needs.TRITON),
    "export clip": Command("export_clip", "export a Chinese-CLIP model", environment.Needs.TRITON),
    "export faces": Command("export_faces", "export an InsightFace pack", environment.Needs.TRITON),
    "check-models": Command("check_models", "check a model repository before it is deployed", environment.Needs.TRITON),
    "models archive": Command("models_archive", "write a model repository into one file, with its hashes"),
    "models restore": Command("models_restore", "restore a model repository from such a file, verified"),
    "doctor": Command("doctor", "say what is wrong with an installation, and how to put it right"),
    "predict": Command("predict", "ask an Immich machine-learning server about one image or query"),
    "compare": Command("compare", "compare two servers on your own photos, with a report", environment.Needs.PICTURES),
    "reindex": Command("reindex", "have Immich compute again what a new model must answer", environment.Needs.PICTURES),
    "reprocess": Command("reprocess", "have Immich process chosen photos again, and see what comes of it"),
    "ledger": Command("ledger", "show or give up the CLIP names that the gateway owns"),
    "health": Command("health", "tell whether a running gateway is ready (the container's health check)"),
}

USAGE: Final = "usage: immich-triton COMMAND [OPTION…]    (immich-triton COMMAND --help says more)"


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns its exit code; 2 when there is no such command, or it lacks something."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] in (["--version"], ["-V"]):
        print(f"immich-triton {__version__}")
        return 0
    if not given or given[0] in ("--help", "-h", "help"):
        print(help_text())
        return 0 if given else 2
    name, rest = find(given)
    if name is None:
        print(f"immich-triton: there is no command {' '.join(given[:2])!r}\n\n{help_text()}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    missing = gpu_environment.enter(given) if gpu_environment.wanted(name, rest) else None
    if (missing := missing or environment.enter(command.needed_for(rest), given)) is not None:
        print(f"immich-triton {name}: {missing}", file=sys.stderr)
        return 2
    sys.argv[0] = f"immich-triton {name}"  # what argparse calls the program
    module = importlib.import_module(f"immich_triton.cli.{command.module}")
    return int(module.main(rest))


def find(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return the name of the command that *arguments* begin with, of one word or two, and what follows it."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS and len(arguments) >= words:
            return name, arguments[words:]
    return None, arguments


def help_text() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [USAGE, "", *(f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()), "", "  --version"]
    )
