"""A Dockerfile as far as our tests look into it: stages, instructions, what is copied."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined: ``RUN``, ``COPY`` …, and what follows."""

    name: str
    text: str
    stage: str

    @property
    def words(self) -> list[str]:
        """The arguments: of the JSON form, or separated by blanks."""
        if self.text.startswith("["):
            return [str(word) for word in json.loads(self.text)]
        return self.text.split()


class Dockerfile:
    """The file at *path*; the last stage is what is built without a target."""

    def __init__(self, path: Path) -> None:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not re.match(r"\s*#", line)]
        joined = "\n".join(lines).replace("\\\n", " ")
        self.instructions: list[Instruction] = []
        self.stages: dict[str, str] = {}
        stage = ""
        for line in filter(None, map(str.strip, joined.splitlines())):
            name, _, text = line.partition(" ")
            text = text.strip()
            if name == "FROM":
                image, _, stage = text.partition(" AS ")
                stage = stage or path.stem
                self.stages[stage] = image
            self.instructions.append(Instruction(name, text, stage))

    def all(self, name: str, stage: str | None = None) -> list[Instruction]:
        """Return the instructions of one kind, of one *stage* or of all."""
        return [one for one in self.instructions if one.name == name and stage in (None, one.stage)]

    def lineage(self, stage: str) -> list[str]:
        """Return *stage* and the stages that it is made from, the outermost last."""
        image = self.stages[stage]
        return [stage, *(self.lineage(image) if image in self.stages else [])]

    def last(self, name: str, stage: str) -> Instruction | None:
        """Return what holds of *name* in the image of *stage*: its own instruction, or an inherited one."""
        return next((own[-1] for each in self.lineage(stage) if (own := self.all(name, each))), None)

    @property
    def arguments(self) -> list[str]:
        """The names of build arguments."""
        return [one.text.partition("=")[0] for one in self.all("ARG")]

    @property
    def volumes(self) -> list[str]:
        """The folders that are volumes, of all stages."""
        return [word for one in self.all("VOLUME") for word in one.words]
