"""Commands where the machine is in their way: output that is closed or full, files that may not be read, a locale
without letters, a disk without room. Each is told in a line, with the exit code that scripts look at.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orion.errors import EXIT_GAVE_UP, EXIT_OK, EXIT_RESOURCE, EXIT_USAGE
from tests.conftest import REPOSITORY
from tests.instances import environment
from tests.videos import write_video

LIMIT_S = 60.0
PRINTING = ["config show", "config schema", "completion", "bench", "ctl", "models list", "doctor --broker none"]
OBEDIENT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Takes from root the right to read what nobody may."""


def orion(folder: Path, line: str, redirected: str = "", *, variables: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `orion LINE` by a shell, with outputs `redirected`; return the exit code and what it said on stderr."""
    command = [*OBEDIENT, "sh", "-c", f'exec "$0" -m orion {line} {redirected}', sys.executable]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder) | (variables or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[Path]:
    """A folder `closed` that may not be entered, a model, a video and a folder of models that may not be read."""
    write_video(tmp_path / "video.avi", frames=3)
    shutil.copy(REPOSITORY / "models" / "hog_person_640.onnx", tmp_path / "model.onnx")
    (tmp_path / "closed").mkdir()
    (tmp_path / "models").mkdir()
    for name in ("closed", "models", "model.onnx", "video.avi"):
        (tmp_path / name).chmod(0)
    yield tmp_path
    for name in ("closed", "models"):
        (tmp_path / name).chmod(0o700)


@pytest.mark.parametrize("line", PRINTING)
@pytest.mark.parametrize(
    ("redirected", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_output_that_cannot_be_written_is_one_line(tmp_path: Path, line: str, redirected: str, why: str) -> None:
    code, said = orion(tmp_path, line, redirected)
    assert (code, said) == (EXIT_GAVE_UP, f"standard output cannot be written to: {why}\n")


def test_a_reader_that_leaves_is_no_fault_to_talk_about(tmp_path: Path) -> None:
    assert orion(tmp_path, "config schema", "| true") == (EXIT_OK, "")


def test_who_does_not_listen_any_more_changes_neither_the_run_nor_its_exit_code(tmp_path: Path) -> None:
    line = "run --source demo:320x240@10 --frames 9 --every-frame --broker none --results results.jsonl"
    (tmp_path / "text").write_text("no model")
    for more, expected in (("", EXIT_OK), ("--model text", EXIT_RESOURCE)):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer) as stderr:
            command = [sys.executable, "-m", "orion", *line.split(), *more.split()]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment(tmp_path), stderr=stderr, timeout=LIMIT_S, check=False
            )
        assert done.returncode == expected
        assert (tmp_path / "results.jsonl").read_text().count("\n") == (9 if expected == EXIT_OK else 0)


@pytest.mark.parametrize(("more", "expected"), [("", EXIT_OK), ("--model text", EXIT_RESOURCE)])
def test_a_log_for_programs_has_nothing_but_lines_of_json(tmp_path: Path, more: str, expected: int) -> None:
    (tmp_path / "text").write_text("no model")
    line = f"run --source demo:320x240@10 --frames 2 --every-frame --broker none {more}"
    code, said = orion(tmp_path, line, variables={"ORION_LOG__FORMAT": "json"})
    assert code == expected
    events = [json.loads(event) for event in said.splitlines()]
    assert any(event["message"].startswith("stopped after ") for event in events)
    last = events[-1]["message"]
    assert last.startswith("text: onnxruntime cannot use it" if more else "latencies: ")


def test_without_any_output_the_exit_code_still_tells(tmp_path: Path) -> None:
    assert orion(tmp_path, "config show", ">&- 2>&- <&-") == (EXIT_GAVE_UP, "")
    assert orion(tmp_path, "run --nonsense", ">&- 2>&- <&-") == (EXIT_USAGE, "")
    line = "run --source demo:320x240@10 --frames 2 --every-frame --broker none --results results.jsonl"
    assert orion(tmp_path, line, ">&- 2>&- <&-") == (EXIT_OK, "")
    assert (tmp_path / "results.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("run --source closed/x.avi", EXIT_USAGE, "streams.0.source: permission denied: 'closed/x.avi'"),
        ("run --model closed/x.onnx", EXIT_USAGE, "model_path: permission denied: 'closed/x.onnx' (--model)"),
        ("models inspect closed/x.onnx", EXIT_USAGE, "permission denied: 'closed/x.onnx'"),
        ("models list --model-dir models", EXIT_RESOURCE, "models: the folder cannot be read: Permission denied"),
        ("models verify --model-dir models", EXIT_RESOURCE, "models: the folder cannot be read: Permission denied"),
        ("run --broker none --model-dir models", EXIT_RESOURCE, "the folder cannot be read: Permission denied"),
        ("run --broker none --results closed/r", EXIT_RESOURCE, "written to closed/r: Permission denied"),
    ],
)
def test_what_may_not_be_read_is_not_called_absent(forbidden: Path, line: str, code: int, told: str) -> None:
    found, said = orion(forbidden, line)
    assert (found, said.count("\n")) == (code, 1)
    assert told in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--source video.avi", "source video.avi: cannot be read: Permission denied"),
        ("--model model.onnx", "model.onnx: onnxruntime cannot use it: [Errno 13] Permission denied: 'model.onnx'"),
    ],
)
def test_a_run_that_cannot_begin_ends_with_the_reason_and_without_a_table(
    forbidden: Path, options: str, told: str
) -> None:
    code, said = orion(forbidden, f"run --broker none {options}")
    assert code == EXIT_RESOURCE
    assert said.splitlines()[-1] == told
    assert "starting again" not in said
    if "source" in options:
        assert "p95" not in said


def test_a_disk_without_room_for_the_results_is_told_by_the_exit_code(tmp_path: Path) -> None:
    line = "run --source demo:320x240@10 --frames 3 --every-frame --broker none --results /dev/full"
    code, said = orion(tmp_path, line)
    assert code == EXIT_RESOURCE
    assert "3 results could not be written to the results file: No space left on device" in said


def test_a_name_that_is_no_text_in_this_locale_is_one_problem(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, said = orion(tmp_path, "run --source ü.mp4", variables=plain)
    assert (code, said) == (EXIT_USAGE, "streams.0.source: is not UTF-8 (--source)\n")
