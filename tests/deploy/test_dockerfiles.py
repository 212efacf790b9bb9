"""The Dockerfiles: rules of the trade that a linter would check, and that what they name exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
from dockerfile import Dockerfile
from mitmproxy.options import Options
from places import PROJECT

from immich_triton.cli import run_options
from immich_triton.cli.main import COMMANDS
from immich_triton.ml.settings import OPTIONS

FOLDER: Final = PROJECT / "deploy/docker"
FILES: Final = {path.name: Dockerfile(path) for path in (FOLDER / "Dockerfile", FOLDER / "ngc.Dockerfile")}
MAIN: Final = FILES["Dockerfile"]
IMAGES: Final = [("Dockerfile", stage) for stage in ("gateway", "exporter", "embedded")] + [("ngc.Dockerfile", "ngc")]
PINNED: Final = re.compile(r"^[\w./-]+:\d+\.\d+(\.\d+)?-[\w-]+$|@sha256:[0-9a-f]{64}$")


def broken_rules(file: Dockerfile) -> list[str]:
    """Return the rules that *file* breaks, each with the place."""
    found = []
    for stage, image in file.stages.items():
        if image not in file.stages and not PINNED.search(image):
            found.append(f"{stage}: the base {image} is not pinned")
    for one in file.instructions:
        where = f"{one.stage}: {one.name} {one.text[:40]}"
        if one.name == "ADD":
            found.append(f"{where}: COPY says what it does")
        if one.name in ("ENTRYPOINT", "CMD") and not one.text.startswith("["):
            found.append(f"{where}: a shell would get the signals")
        if one.name == "WORKDIR" and not one.text.startswith("/"):
            found.append(f"{where}: not absolute")
        if re.search(r"\b(curl|wget)\b.*\|\s*(ba)?sh\b", one.text):
            found.append(f"{where}: runs what a server says today")
        if "pip " in one.text and " install " in one.text:
            missing = {"--no-cache-dir", "--no-deps", "--require-hashes"} - {*one.text.split()}
            found += [f"{where}: without {option}" for option in sorted(missing)]
        if "apt-get install" in one.text and "--no-install-recommends" not in one.text:
            found.append(f"{where}: takes what nobody asked for")
        if re.search(r"\bsudo\b|chmod\s+(-R\s+)?777", one.text):
            found.append(f"{where}: more rights than needed")
        if re.search(r"(?i)\b(password|secret|token|api_key)\s*=", one.text):
            found.append(f"{where}: a secret in an image")
    return found


@pytest.mark.parametrize("name", FILES)
def test_no_rule_is_broken(name: str) -> None:
    assert broken_rules(FILES[name]) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("FROM python:latest", "not pinned"),
        ("FROM python", "not pinned"),
        ("FROM python:3.12", "not pinned"),
        ("ADD a b", "COPY says"),
        ("CMD run me", "signals"),
        ("WORKDIR app", "not absolute"),
        ("RUN curl https://example.org/install | sh", "runs what a server says"),
        ("RUN pip install numpy", "without --require-hashes"),
        ("RUN apt-get install -y \\\n  git", "nobody asked for"),
        ("RUN chmod 777 /app", "more rights"),
        ("ENV API_KEY=abc", "a secret"),
    ],
)
def test_the_rules_find_what_they_are_for(line: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(line if line.startswith("FROM") else f"FROM python:3.12.12-slim-bookworm\n{line}\n")
    (broken, *_) = [one for one in broken_rules(Dockerfile(path)) if complaint in one]
    assert broken


@pytest.mark.parametrize(("name", "stage"), IMAGES)
def test_every_image_has_a_user_a_health_check_and_an_entry_point(name: str, stage: str) -> None:
    file = FILES[name]
    user = file.last("USER", stage)
    assert user is not None
    assert user.text not in ("root", "0")
    after = file.instructions[file.instructions.index(user) :]
    assert not [one for one in after if one.stage == stage and one.name in ("RUN", "COPY")], "as root, before"
    assert file.last("HEALTHCHECK", stage)
    assert file.last("ENTRYPOINT", stage)
    assert file.last("EXPOSE", stage) or stage == "exporter"


def test_the_default_is_the_embedded_triton() -> None:
    assert [*MAIN.stages][-1] == "embedded"


def test_the_images_share_one_debian() -> None:
    outside = {image for image in MAIN.stages.values() if image not in MAIN.stages}
    assert {image.rpartition("-")[2] for image in outside} == {"bookworm"}
    assert {image.rpartition(":")[2].rpartition(".")[0] for image in outside} == {"3.11", "3.12"}
    version = (PROJECT / ".python-version").read_text().split()
    assert any(image.startswith(f"python:{version[0].rpartition('.')[0] or version[0]}") for image in outside)


def ignored(path: str) -> bool:
    """Return whether .dockerignore keeps *path* out of the build."""
    out = False
    for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if pattern == "*" or path == pattern or path.startswith(f"{pattern}/"):
            out = not line.startswith("!")
    return out


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_exists_and_reaches_the_build(name: str) -> None:
    for one in FILES[name].all("COPY"):
        if "--from=" in one.text:
            stage = one.words[0].removeprefix("--from=")
            assert stage in FILES[name].stages
            continue
        for source in one.words[:-1]:
            if source != ".":
                assert (PROJECT / source).exists(), source
                assert not ignored(source), source


def test_no_weights_and_no_lab_reach_the_build() -> None:
    assert ignored("triton_models/ocr_det/1/model.onnx")
    assert ignored("scripts/lab/chaos.py")
    assert ignored(".env")
    assert not ignored("triton_models/ocr/config.pbtxt")


def test_entry_points_and_health_checks_name_what_exists() -> None:
    own = {option.name for option in OPTIONS}
    for one in [each for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK") for each in MAIN.all(name)]:
        words = one.words if one.text.startswith("[") else one.text.partition("CMD ")[2].strip('[]"').split('", "')
        if words[0] == "immich-triton":
            assert words[1] in COMMANDS
        for before, word in zip(["", *words], words, strict=False):
            if before == "--set":
                name = word.partition("=")[0]
                assert name in own or name in Options(), name
            if before == "--scripts":
                assert (PROJECT / word).is_file()
    embedded = MAIN.last("ENTRYPOINT", "embedded")
    default = MAIN.last("CMD", "embedded")
    assert embedded
    assert default
    parsed = run_options.parse([*embedded.words[2:], *default.words])
    exposed = MAIN.last("EXPOSE", "embedded")
    assert exposed
    assert {str(parsed.port), str(parsed.metrics_port)} == {*exposed.words}
    assert str(parsed.models) in MAIN.volumes


def test_what_is_run_inside_is_told_where_the_entry_point_keeps_its_folders() -> None:
    entry = MAIN.last("ENTRYPOINT", "embedded")
    assert entry is not None
    folder = entry.words[entry.words.index("--run-dir") + 1]
    guide = (PROJECT / "docs/deploy.md").read_text(encoding="utf-8")
    inside = re.findall(r"docker compose exec \S+ immich-triton ((?:doctor|health).*)", guide)
    assert {line.split()[0] for line in inside} == {"doctor", "health"}
    assert [line for line in inside if f"--run-dir {folder}" not in line] == [], "else what sleeps is taken for away"


def test_nvidias_image_gets_the_lock_without_a_second_triton(tmp_path: Path) -> None:
    (install,) = FILES["ngc.Dockerfile"].all("RUN")
    (filtering, _) = install.text.split(" && ")
    (tmp_path / "requirements.lock").write_text((PROJECT / "requirements.lock").read_text())
    subprocess.run(["sh", "-c", filtering], cwd=tmp_path, check=True)

    def packages(name: str) -> list[str]:
        return re.findall(r"^([a-z][\w.-]*)==", (tmp_path / name).read_text(), re.MULTILINE)

    assert {*packages("requirements.lock")} - {*packages("pipelines.lock")} == {"nvidia-pytriton"}
    assert "--hash" in (tmp_path / "pipelines.lock").read_text()


def test_what_is_pruned_is_nothing_that_we_import() -> None:
    text = (FOLDER / "prune.sh").read_text(encoding="utf-8")
    assert "set -eu" in text
    # The server finds the stub of the running Python, and OpenVINO reads ONNX models on a CPU.
    assert "3.12" not in re.findall(r"python_backend_stubs/([\d.\[\]]+)", text)
    assert "onnx_frontend" not in text
    assert not re.search(r"for format in .*\bonnx\b", text)
