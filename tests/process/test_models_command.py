"""`orion models` as an operator calls it, and the answer that `run` takes at its start from the same child."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orion.errors import EXIT_GAVE_UP, EXIT_OK, EXIT_RESOURCE
from tests.conftest import REPOSITORY
from tests.instances import environment
from tests.models import placed

LIMIT_S = 60.0
BOXES = [[10.0, 20.0, 110.0, 220.0, 0.9, 0.0]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a pair that runs and a file that is no model."""
    placed(tmp_path / "yolo11n_640.onnx", 640, BOXES)
    placed(tmp_path / "yolo11n_320.onnx", 320, BOXES)
    (tmp_path / "broken.onnx").write_text("no model")
    return tmp_path


def python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_list_names_every_file(folder: Path) -> None:
    done = python(folder, "orion", "models", "list", "--model-dir", ".")
    assert (done.returncode, done.stderr) == (EXIT_OK, "")
    [broken, small, large] = done.stdout.splitlines()
    assert broken.startswith("broken.onnx ")
    assert "unusable: " in broken
    assert small.startswith("yolo11n_320.onnx ")
    assert "input 320x320" in small
    assert large.startswith("yolo11n_640.onnx ")
    assert "input 640x640" in large


def test_verify_runs_the_pairs(folder: Path) -> None:
    done = python(folder, "orion", "models", "verify", "--model-dir", ".")
    assert done.returncode == EXIT_GAVE_UP
    [pair, broken] = done.stdout.splitlines()
    assert pair.startswith("yolo11n ")
    assert "640 in " in pair
    assert "320 in " in pair
    assert "onnxruntime cannot use it" in broken
    (folder / "broken.onnx").unlink()
    assert python(folder, "orion", "models", "verify", "--model-dir", ".").returncode == EXIT_OK


def test_verify_fails_where_nobody_is_seen(folder: Path) -> None:
    (folder / "broken.onnx").unlink()
    placed(folder / "yolo11n_320.onnx", 320, [[10.0, 20.0, 110.0, 220.0, 0.2, 0.0]])
    done = python(folder, "orion", "models", "verify", "--model-dir", ".")
    assert done.returncode == EXIT_GAVE_UP
    assert done.stdout.rstrip().endswith("; 320 sees nobody in the drawn pictures")


def test_inspect_says_what_a_file_is(folder: Path) -> None:
    done = python(folder, "orion", "models", "inspect", "yolo11n_320.onnx")
    assert done.returncode == EXIT_OK
    assert done.stdout.startswith("yolo11n, input 320x320 float32")
    broken = python(folder, "orion", "models", "inspect", "broken.onnx")
    assert (broken.returncode, broken.stdout, broken.stderr.count("\n")) == (EXIT_RESOURCE, "", 1)
    assert broken.stderr.startswith("broken.onnx: onnxruntime cannot use it")


def test_a_pair_is_resolved_as_json(folder: Path) -> None:
    done = python(folder, "workers.catalogue_cli", "resolve", str(folder), "n")
    assert json.loads(done.stdout) == {
        "model_640": str(folder / "yolo11n_640.onnx"),
        "model_320": str(folder / "yolo11n_320.onnx"),
        "model_name": "yolo11n",
        "model_size": "n",
    }
    absent = python(folder, "workers.catalogue_cli", "resolve", str(folder), "x")
    assert (absent.returncode, absent.stdout) == (EXIT_RESOURCE, "")
    assert "expected a model of size x" in absent.stderr


def test_the_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """onnxruntime would leave an id and a database in the caller's home, and send what it notes there."""
    model = REPOSITORY / "models" / "hog_person_320.onnx"
    code = f"from workers.session import Session; Session({str(model)!r}, 320, 'cpu', 1)"
    kept = {
        name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.rglob("*"))
