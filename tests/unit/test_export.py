import importlib.machinery
import json
import os
import shutil
import sys
import types
from pathlib import Path

import pytest

from models.build_embedded import FOLDER
from orion.errors import ModelError
from orion.messages import SessionSize
from tests.models import placed, seeing
from workers import catalogue, catalogue_cli, export

BOXES = [[0.0, 0.0, 50.0, 60.0, 0.7, 0.0]]


def exporter(model: str, size: SessionSize, folder: Path) -> Path:
    """Write a small model where Ultralytics would."""
    return seeing(folder / f"{Path(model).stem}.onnx", size, description="Ultralytics YOLO11n model")


def test_a_pair_with_fixed_names_and_a_manifest_comes_out(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"models": [{"file": "other.onnx", "sha256": "x"}]}')
    made = export.export("yolo11n", tmp_path / "", exporter)
    assert [path.name for path in made] == ["yolo11n_fp32_640.onnx", "yolo11n_fp32_320.onnx"]
    found = catalogue.resolve(tmp_path, "n")
    assert (found.model_640, found.model_320) == (str(made[0]), str(made[1]))
    listed = json.loads((tmp_path / "manifest.json").read_text())["models"]
    assert [entry["file"] for entry in listed] == ["other.onnx", *(path.name for path in made)]
    assert {entry["sha256"] for entry in listed[1:]} == {entry.sha256 for entry in catalogue.list_folder(tmp_path)}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "yolo11n_fp32_320.onnx",
        "yolo11n_fp32_640.onnx",
    ]


def test_what_else_a_manifest_says_stays(tmp_path: Path) -> None:
    """The folder `models` of a checkout is where the embedded model is described."""
    manifest = tmp_path / "manifest.json"
    shutil.copy(FOLDER / "manifest.json", manifest)
    before = json.loads(manifest.read_text())
    made = export.export("yolo11n", tmp_path, exporter)
    after = json.loads(manifest.read_text())
    names = [path.name for path in made]
    fresh = [entry for entry in after["models"] if entry["file"] in names]
    assert [entry["file"] for entry in fresh] == names
    assert all("AGPL-3.0" in entry["license"] for entry in fresh), "the folder's own licence is not theirs"
    after["models"] = [entry for entry in after["models"] if entry not in fresh]
    before["models"] = [entry for entry in before["models"] if entry["file"] not in names]
    assert after == before


@pytest.mark.parametrize("wrong", ["other size", "not a model"])
def test_what_does_not_run_leaves_nothing(tmp_path: Path, wrong: str) -> None:
    def broken(model: str, size: SessionSize, folder: Path) -> Path:
        path = exporter(model, 640, folder)
        if wrong == "not a model":
            path.write_bytes(path.read_bytes()[:100])
        return path

    with pytest.raises(ModelError):
        export.export("yolo11n", tmp_path, broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("in_the_way", ["yolo11n_fp32_320.onnx", "manifest.json"])
def test_what_cannot_be_put_there_leaves_the_old_pair(tmp_path: Path, in_the_way: str) -> None:
    export.export("yolo11n", tmp_path, exporter)
    (tmp_path / in_the_way).unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def slow(model: str, size: SessionSize, folder: Path) -> Path:
        # It is there only once the export has begun.
        (tmp_path / in_the_way).mkdir(exist_ok=True)
        return placed(folder / "made.onnx", size, BOXES)

    with pytest.raises(ModelError, match=f"{in_the_way}: cannot be used: Is a directory"):
        export.export("yolo11n", tmp_path, slow)
    (tmp_path / in_the_way).rmdir()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupt_between_two_files_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export.export("yolo11n", tmp_path, exporter)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    rename, seen = Path.rename, list[str]()

    def interrupted(source: Path, target: Path) -> Path:
        if target == tmp_path / "yolo11n_fp32_320.onnx" and source.suffix == ".onnx":
            seen.extend(path.name for path in tmp_path.iterdir() if path.is_file())
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export.export("yolo11n", tmp_path, lambda model, size, folder: placed(folder / "made.onnx", size, BOXES))
    monkeypatch.undo()
    assert seen == ["yolo11n_fp32_640.onnx"], "no old file is beside a new one at any moment"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", ["[]", '{"models": 5}', "5", '{"models": ["a.onnx"]}', "{", "[" * 100_000])
def test_a_broken_manifest_is_told_before_the_export(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ModelError, match=r"manifest\.json: expected .*, found"):
        export.export("yolo11n", tmp_path, lambda *_: pytest.fail("it was exported"))
    assert (tmp_path / "manifest.json").read_text() == content


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("no folder")
    with pytest.raises(ModelError, match=r"models.*: .*Not a directory"):
        export.export("yolo11n", tmp_path / "models", exporter)


def test_without_the_extra_the_commands_are_told() -> None:
    told = "\n".join(export.commands("yolo11n", Path("models")))
    assert "yolo export model=yolo11n.pt format=onnx imgsz=640 && mv yolo11n.onnx models/yolo11n_fp32_640.onnx" in told
    assert "imgsz=320" in told
    assert "mkdir -p models" in told
    assert ".venv-export/bin/pip install ultralytics onnx onnxslim onnxruntime\n" in told


def test_the_commands_fetch_the_file_from_beside_the_weights_whatever_it_is_called() -> None:
    told = "\n".join(export.commands("/srv/my room.pt", Path("the models")))
    assert "yolo export 'model=/srv/my room.pt' format=onnx imgsz=320 && " in told
    assert "&& mv '/srv/my room.onnx' 'the models/my room_fp32_320.onnx'" in told


@pytest.fixture
def ultralytics(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package of that name that exports nothing yet."""
    package = types.ModuleType("ultralytics")
    package.__spec__ = importlib.machinery.ModuleSpec("ultralytics", None)
    monkeypatch.setitem(sys.modules, "ultralytics", package)
    for name in ("YOLO_OFFLINE", "YOLO_AUTOINSTALL"):
        # Set first, so that what the exporter sets is undone afterwards.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return package


@pytest.mark.parametrize(
    "failure", [ConnectionError("no way\nout"), TypeError("no way"), AttributeError("no way"), AssertionError("no way")]
)
def test_what_ultralytics_cannot_export_is_told_in_a_line(
    tmp_path: Path, ultralytics: types.ModuleType, failure: Exception
) -> None:
    def refuse(path: str) -> object:
        raise failure

    ultralytics.YOLO = refuse  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"^yolo11n: Ultralytics cannot export it: no way$"):
        export.export("yolo11n", tmp_path, export.ultralytics_exporter("yolo11n", tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert (os.environ["YOLO_OFFLINE"], os.environ["YOLO_AUTOINSTALL"]) == ("true", "false")


def test_the_command_line_shows_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export.export("yolo11n", tmp_path, exporter)
    assert catalogue_cli.main(["list", str(tmp_path)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].startswith("yolo11n_fp32_320.onnx")
    assert listed[0].endswith("yolo11n, input 320x320 float32, grid head, 1 class")
    assert catalogue_cli.main(["inspect", str(tmp_path / "yolo11n_fp32_640.onnx")]) == 0
    assert capsys.readouterr().out == "yolo11n, input 640x640 float32, grid head, 1 class\n"
    assert catalogue_cli.main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("yolo11n          runs: 640 in ")
    assert catalogue_cli.main(["resolve", str(tmp_path), "n"]) == 0
    assert json.loads(capsys.readouterr().out)["model_320"] == str(tmp_path / "yolo11n_fp32_320.onnx")


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"")
    assert catalogue_cli.main(["list", str(tmp_path)]) == 0
    assert "unusable: " in capsys.readouterr().out
    assert catalogue_cli.main(["verify", str(tmp_path)]) == 1
    assert catalogue_cli.main(["resolve", str(tmp_path), "n"]) == 4
    assert "expected a model of size n, found broken.onnx (unusable)" in capsys.readouterr().err
    assert catalogue_cli.main(["inspect", str(tmp_path / "broken.onnx")]) == 4
