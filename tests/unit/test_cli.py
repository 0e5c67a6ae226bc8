"""The command line as it answers: help, mistakes in one line, and options that reach the configuration."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from orion import __version__
from orion.cli import main
from orion.config import Config, json_schema

COMMANDS = [
    "run",
    "doctor",
    "models list",
    "models verify",
    "models inspect",
    "models export",
    "bench",
    "config show",
    "config schema",
    "completion",
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, str, str]:
    """Run a command line; return its exit code and what it wrote."""
    code = main(shlex.split(line))
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.mark.parametrize("command", ["", "models", "config", *COMMANDS])
def test_there_is_help_everywhere(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = answer(capsys, f"{command} --help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: orion {command}".strip())


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "--version") == (0, f"orion {__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "orion: the following arguments are required: COMMAND"),
        ("rnu", "invalid choice: 'rnu'"),
        ("run --confidnce 0.4", "orion run: unknown argument --confidnce; did you mean --confidence?"),
        ("run --conf 0.4", "unknown argument --conf; did you mean --config?"),
        ("run video.mp4", "unknown argument video.mp4 (see orion run --help)"),
        ("run --source", "argument --source: expected one argument"),
        ("run --attention maybe", "argument --attention: invalid choice: 'maybe'"),
        ("run --every-frame=yes", "argument --every-frame: ignored explicit argument 'yes'"),
        ("doctor --modell x", "unknown argument --modell; did you mean --model?"),
        ("models", "orion models: the following arguments are required"),
        ("models inspect", "the following arguments are required: FILE"),
        ("models inspect absent.onnx", "no such file: 'absent.onnx'"),
        ("config schma", "invalid choice: 'schma'"),
        ("ctl set_inf --timout 1 rate_hz=2", "orion ctl: unknown argument --timout; did you mean --timeout?"),
        ("bench --fast", "unknown argument --fast"),
        ("bench trnsport", "no benchmark is called 'trnsport'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], line: str, told: str) -> None:
    code, out, err = answer(capsys, line)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_options_reach_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    line = "config show --source rtsp://anna:geheim@cam/x --source 1 --rate 2 --attention off --broker none --threads 3"
    code, out, err = answer(capsys, line)
    assert (code, err) == (0, "")
    shown = Config.model_validate(yaml.safe_load(out))
    assert [(stream.source, stream.rate_hz) for stream in shown.streams] == [("rtsp://***@cam/x", 2), ("1", 2)]
    assert (shown.attention.mode, shown.mqtt.broker, shown.workers.threads) == ("off", "none", 3)


@pytest.mark.parametrize(
    "line",
    [
        "set_inference_rate rate_hz=2 stream_id=cam0",
        "set_inference_rate --timeout 1 rate_hz=2 stream_id=cam0",
        "--json set_inference_rate rate_hz=2 --timeout 1 stream_id=cam0",
        "--timeout 1 set_inference_rate rate_hz=2 stream_id=cam0 --json",
    ],
)
def test_options_of_ctl_may_stand_anywhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    sent: list[tuple[str, list[str]]] = []

    def send(config: Config, command: str, words: list[str], **_: object) -> int:
        sent.append((command, words))
        return 0

    monkeypatch.setattr("orion.ctl.run", send)
    assert answer(capsys, f"ctl {line}") == (0, "", "")
    assert sent == [("set_inference_rate", ["rate_hz=2", "stream_id=cam0"])]


@pytest.mark.parametrize("command", ["ctl get_status", "watch"])
def test_who_speaks_with_an_instance_needs_only_what_leads_to_its_broker(
    capsys: pytest.CaptureFixture[str], empty_folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(empty_folder))
    elsewhere = {
        "streams": [{"stream_id": "cam0", "source": "/elsewhere/room.mp4"}],
        "models": {"person_detector": {"model_dir": "/elsewhere/models"}},
        "control": {"source_dirs": ["/elsewhere/videos"]},
        "run": {"results": "/elsewhere/results.jsonl"},
        "mqtt": {"tls": {"ca": "/elsewhere/ca.pem"}},
    }
    (empty_folder / "orion.yaml").write_text(yaml.safe_dump(elsewhere))
    code, _, err = answer(capsys, command)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("mqtt.tls.ca: no such file or folder: '/elsewhere/ca.pem'")
    (empty_folder / "orion.yaml").write_text(yaml.safe_dump(elsewhere | {"mqtt": {}}))
    code, _, err = answer(capsys, command)
    assert (code, "does not run on this machine" in err) == (3, True)


def test_file_and_environment_reach_the_configuration(
    capsys: pytest.CaptureFixture[str], empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "orion.yaml").write_text("telemetry_s: 7\nroom_id: file")
    monkeypatch.setenv("ORION_ROOM_ID", "environment")
    shown = yaml.safe_load(answer(capsys, "config show")[1])
    assert (shown["telemetry_s"], shown["room_id"]) == (7, "environment")


def test_all_problems_of_a_configuration_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "config show --confidence 2 --rate 0 --model absent.onnx")
    assert (code, out) == (2, "")
    assert [line.partition(":")[0] for line in err.splitlines()] == [
        "models.person_detector.model_path",
        "streams.0.rate_hz",
        "models.person_detector.confidence",
    ]


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "config schema")
    assert (code, json.loads(out)) == (0, json_schema())


def test_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "bench")
    assert code == 0
    assert "scoring" not in out, "a module that others import is no benchmark"
