"""What an older version of the project wrote into a model repository is brought up to date by the next start."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tiny_encoders
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from immich_triton.core.paths import MODELS
from immich_triton.export.repository import install_pipelines
from immich_triton.ml.route_file import Route, write_route
from immich_triton.ml.routes import load_routes
from immich_triton.server.renewal import renew
from immich_triton.triton.pipelines import Pipeline

SHA = "a1" * 32


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with a CLIP route as older exports wrote it, and their records; and a route that is not valid."""
    for name, fingerprint in (("see", 11), ("read", 12)):
        (tmp_path / name).mkdir()
        record = {"fingerprint": fingerprint, "weights": {"sha256": SHA}}
        (tmp_path / name / "export.json").write_text(json.dumps(record))
    pipelines = [
        Pipeline("clip_image", ["visual"], ["see"], {"encoder": "see"}),
        Pipeline("clip_text", ["textual"], ["read"], {"encoder": "read"}),
    ]
    write_route(tmp_path / "see", Route("clip", [tiny_encoders.NAME], pipelines, SHA, 512, untrained=True))
    return tmp_path


def fingerprints(models: Path) -> list[int | None]:
    (route,) = load_routes(models).routes
    return [pipeline.fingerprint for pipeline in route.pipelines]


def test_a_route_gets_the_fingerprints_of_its_encoders_once(models: Path) -> None:
    path = models / "see/route.toml"
    assert fingerprints(models) == [11, 12], "a gateway over the repository itself finds them without"
    before = load_routes(models).routes[0]
    assert renew(models) == [f"added the fingerprints to {path}: copy it to gateways on other machines"]
    assert renew(models) == []
    # As a gateway on another machine has it.
    for name in ("see", "read"):
        (models / name / "export.json").unlink()
    after = load_routes(models).routes[0]
    assert fingerprints(models) == [11, 12]
    assert (after.names, after.dimension, after.untrained, after.weights_sha256) == (
        before.names,
        before.dimension,
        before.untrained,
        before.weights_sha256,
    )
    assert [dict(pipeline.parameters) for pipeline in after.pipelines] == [{"encoder": "see"}, {"encoder": "read"}]


def test_what_is_about_other_weights_is_not_believed(models: Path) -> None:
    (models / "read/export.json").write_text(json.dumps({"fingerprint": 12, "weights": {"sha256": "b2" * 32}}))
    before = (models / "see/route.toml").read_text()
    (told,) = renew(models)
    assert "requests for it get 503; run immich-triton export clip again" in told
    assert (models / "see/route.toml").read_text() == before
    assert fingerprints(models) == [11, None]


@pytest.mark.parametrize("text", ["task =", 'task = "clip"', 'task = "clip"\npipelines = [1]\n', "a = " + "[" * 50_000])
def test_a_route_that_is_not_valid_is_left_to_the_gateway(models: Path, text: str) -> None:
    (models / "see/route.toml").write_text(text)
    assert renew(models) == []
    assert (models / "see/route.toml").read_text() == text


@pytest.mark.parametrize(
    ("where", "whose"),
    [("task =", "the route has the unknown key 'colour'"), ("name =", "the pipeline clip_image has the unknown key")],
)
def test_an_unknown_key_is_told(models: Path, where: str, whose: str) -> None:
    path = models / "see/route.toml"
    text = path.read_text().replace(f"\n{where}", f'\ncolour = "red"\n{where}', 1)
    path.write_text(text)
    (told,) = renew(models)
    assert told.startswith(f"warning: the fingerprints are not added to {path}: {whose}")
    assert path.read_text() == text


@pytest.mark.parametrize("renewed", [False, True])
@pytest.mark.parametrize("name", ["clip_image", "clip_text"])
def test_an_edited_config_of_an_older_version_gets_the_new_output(tmp_path: Path, name: str, *, renewed: bool) -> None:
    install_pipelines(tmp_path, [name])
    config, record = tmp_path / name / "config.pbtxt", tmp_path / name / "installed.json"
    old = re.sub(r',\n  \{ name: "FINGERPRINT".*', "", config.read_text())
    edited = re.sub(r"count: \d", "count: 5", old).rstrip() + ' # no "FINGERPRINT" yet'
    config.write_text(edited)
    if not renewed:  # as an older version left it
        record.write_text(record.read_text().replace("1/model.py", "1/old.py"))
    assert renew(tmp_path) == [f"renewed the pipeline {name}"]
    assert config.read_text().startswith(edited)
    parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    shipped = text_format.Parse((MODELS / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert list(parsed.output) == list(shipped.output)
    assert parsed.instance_group[0].count == 5
    assert renew(tmp_path) == []


def test_a_repository_that_cannot_be_written_is_a_warning(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_more: object) -> None:
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    (told,) = renew(models)
    assert told.startswith(f"warning: cannot bring {models} up to date: [Errno 13] Read-only file system")
