"""What appears in a model repository appears whole."""

from __future__ import annotations

import contextlib
from pathlib import Path

from immich_triton.core.paths import MODELS
from immich_triton.export.repository import install_pipelines, new_model, workshop
from immich_triton.ml.routes import load_routes
from immich_triton.server.triton_models import wanted_models


def test_a_model_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_model(tmp_path, "mine") as folder:
        (folder / "1/model.onnx").write_text("weights")
        assert not (tmp_path / "mine").exists()
    assert (tmp_path / "mine/1/model.onnx").read_text() == "weights"
    assert [*tmp_path.iterdir()] == [tmp_path / "mine"]


def test_one_that_fails_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    with new_model(tmp_path, "mine") as folder:
        (folder / "1/model.onnx").write_text("old")
    with contextlib.suppress(ZeroDivisionError), new_model(tmp_path, "mine") as folder:
        (folder / "1/model.onnx").write_text(str(1 // 0))
    assert (tmp_path / "mine/1/model.onnx").read_text() == "old"
    assert [*tmp_path.iterdir()] == [tmp_path / "mine"]


def test_a_new_version_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.py"):
        with new_model(tmp_path, "mine") as folder:
            (folder / "1" / name).touch()
    assert [path.name for path in (tmp_path / "mine/1").iterdir()] == ["model.py"]


def test_what_is_being_built_lies_on_the_same_file_system_and_is_seen_by_nobody(tmp_path: Path) -> None:
    """The repository may be a mount point, as in a container; nothing can be renamed into it from beside it."""
    with workshop(tmp_path, "mine") as folder:
        assert folder.is_relative_to(tmp_path)
        (folder / "route.toml").write_text("not a route")
        assert wanted_models(tmp_path, only_routed=False) == set()
        assert load_routes(tmp_path).routes == ()


def test_pipelines_are_copied_once_and_renewed_when_they_change(tmp_path: Path) -> None:
    assert install_pipelines(tmp_path, ["ocr", "faces"]) == ["ocr", "faces"]
    assert (tmp_path / "ocr/1/model.py").read_bytes() == (MODELS / "ocr/1/model.py").read_bytes()
    assert install_pipelines(tmp_path, ["ocr", "faces"]) == []
    record = tmp_path / "ocr/installed.json"
    record.write_text(record.read_text().replace("1/model.py", "1/old.py"))  # as an older version left it
    assert install_pipelines(tmp_path, ["ocr", "faces"]) == ["ocr"]
    (tmp_path / "faces/1/model.py").unlink()
    assert install_pipelines(tmp_path, ["ocr", "faces"]) == ["faces"]


def test_a_config_that_somebody_edited_stays(tmp_path: Path) -> None:
    install_pipelines(tmp_path, ["ocr"])
    config, record = tmp_path / "ocr/config.pbtxt", tmp_path / "ocr/installed.json"
    config.write_text(config.read_text().replace("count: 2", "count: 1"))
    assert install_pipelines(tmp_path, ["ocr"]) == []
    record.write_text(record.read_text().replace("1/model.py", "1/old.py"))
    assert install_pipelines(tmp_path, ["ocr"]) == ["ocr"]
    assert "count: 1" in config.read_text()


def test_the_projects_own_repository_holds_them_already() -> None:
    assert install_pipelines(MODELS, ["ocr"]) == []
