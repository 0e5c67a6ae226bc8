"""What is typed becomes a checked request before anything is sent, and an answer becomes readable."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from orion.completion import script
from orion.ctl import complete, overview, parameters, readable
from orion.errors import ConfigError
from orion.requests import SCHEMAS


@pytest.mark.parametrize(
    ("typed", "command"),
    [("get_status", "get_status"), ("get-s", "get_status"), ("pau", "pause_inference"), ("shutdown", "shutdown")],
)
def test_command_names_are_completed(typed: str, command: str) -> None:
    assert complete(typed) == command


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("set", "ambiguous: set_inference_rate"),
        ("get_statsu", r"no command; did you mean get_status\? `orion ctl` lists all$"),
        ("pase", r"no command; did you mean pause_inference\?"),
        ("reboot", r"^'reboot' is no command\. `orion ctl` lists all$"),
        ("xyzzy", r"^'xyzzy' is no command\. `orion ctl` lists all$"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_candidates(typed: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        complete(typed)


@pytest.mark.parametrize(
    ("command", "words", "params"),
    [
        ("get_status", [], {}),
        ("set_inference_rate", ["rate_hz=2", "stream_id=cam0"], {"rate_hz": 2, "stream_id": "cam0"}),
        ("set_inference_rate", ["rate_hz=null"], {"rate_hz": None}),
        (
            "set_attention_rois",
            ["rois=[{x: 0, y: 0, width: 0.5, height: 1}]"],
            {"rois": [{"x": 0, "y": 0, "width": 0.5, "height": 1}]},
        ),
        (
            "update_config",
            ["attention.mode=off", "attention.alpha=0.4", "streams=[{stream_id: a}]"],
            {"config": {"attention": {"mode": "off", "alpha": 0.4}, "streams": [{"stream_id": "a"}]}},
        ),
        (
            "update_config",
            ["config={attention: {mode: off}}", "attention.alpha=0.4", "config.attention.rescan_s=1"],
            {"config": {"attention": {"mode": "off", "alpha": 0.4, "rescan_s": 1}}},
        ),
    ],
)
def test_words_become_parameters(command: str, words: list[str], params: dict[str, Any]) -> None:
    assert parameters(command, words) == params


@pytest.mark.parametrize("word", ["models.person_detector.size=s", "mqtt.broker=mqtts://x"])
def test_what_only_the_instance_can_judge_is_sent(word: str) -> None:
    assert parameters("update_config", [word])


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["c"], ["ctl", "config", "completion"]),
        (["ctl", "set_i"], ["set_inference_rate"]),
        (["ctl", "--instance-id", "hall", "sh"], ["shutdown"]),
        (["ctl", "set_model_size", ""], ["size="]),
        (["ctl", "--json", "set_inference_rate", "r"], ["rate_hz="]),
        (["ctl", "get_status", ""], []),
    ],
)
def test_a_shell_completes(program: Callable[[str, str], str], typed: list[str], offered: list[str]) -> None:
    words = " ".join(f"'{word}'" for word in ["orion", *typed])
    ask = f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _orion; echo ${{COMPREPLY[@]}}"
    command = [program("bash", "bash"), "-c", f"{script(['run', 'ctl', 'config', 'completion'])}\n{ask}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (offered, "")


@pytest.mark.parametrize(
    ("command", "words", "error"),
    [
        ("set_inference_rate", ["rate_hz=99"], "rate_hz: should be less than or equal to 60"),
        ("set_inference_rate", [], "rate_hz: is missing"),
        ("set_inference_rate", ["rate_hz"], "'rate_hz': expected key=value"),
        ("set_inference_rate", ["rate_hz=[1"], "rate_hz: line 1"),
        ("set_model_size", ["size=q"], "size: should be"),
        ("set_inference_rate", ["rate=2"], "rate: unknown; known are stream_id, rate_hz"),
        ("update_config", ["attention.alfa=1"], "attention.alfa: unknown key; did you mean alpha?"),
        ("update_config", ["attention.alpha=3"], "attention.alpha: should be less than"),
        ("get_status", ["x=1"], "x: unknown; known are none"),
        ("update_config", [], "config: "),
        ("update_config", ["a=1", "a.b=2"], "a.b: a has a value already"),
        ("update_config", ["attention.alpha=0.4", "config={attention: {mode: off}}"], "config: has values already"),
        ("update_config", ["attention.alpha=0.4", "attention={mode: off}"], "attention: has values already"),
        ("update_config", ["config=3"], "config: should be a valid dictionary"),
        ("update_config", ["config={attention: {alfa: 1}}"], "attention.alfa: unknown key; did you mean alpha?"),
        (
            "update_config",
            ["streams=[{a: 1}, {rate_hz: .nan}]"],
            "streams.1.rate_hz: should be a finite number, not nan",
        ),
        ("update_config", ["telemetry_s=.inf"], "telemetry_s: should be a finite number, not inf"),
        ("set_inference_rate", ["rate_hz=-.inf"], "rate_hz: should be a finite number, not -inf"),
        ("set_attention_rois", ["rois=[{x: 1e999}]"], "rois.0.x: should be a finite number, not inf"),
    ],
)
def test_schema_errors_are_shown_before_sending(command: str, words: list[str], error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parameters(command, words)
    assert error in str(caught.value)


def test_answers_are_readable() -> None:
    good = {"command_ack": "get_status", "status": "success", "data": {"running": True, "streams": [{"fps": 9.5}]}}
    assert readable(good) == "get_status: success\nrunning: true\nstreams:\n- fps: 9.5"
    bad = {"command_ack": "set_model_size", "status": "error", "code": "failed", "error": "w0: no such file"}
    assert readable(bad) == "set_model_size: failed: w0: no such file"


def test_the_overview_names_every_command_with_what_it_takes() -> None:
    lines = overview()
    assert [line.split()[0] for line in lines] == list(SCHEMAS)
    assert "set_inference_rate rate_hz=... [stream_id=...]" in lines
    assert "update_config KEY=... [KEY=...]" in lines
