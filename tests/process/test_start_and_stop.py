"""One stack: what was started is stopped in reverse, whichever step of the start fails."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orion import app, lock, lookup
from orion.broker import EmbeddedBroker
from orion.bus import Bus
from orion.commands import Commands
from orion.config import Config
from orion.display import Display
from orion.errors import EXIT_GAVE_UP, OrionError
from orion.lock import InstanceLock
from orion.outlet import Painter
from orion.results import ResultWriter
from orion.supervisor import Supervisor

PARTS: tuple[tuple[str, type[Any], str, str], ...] = (
    ("lock", InstanceLock, "__enter__", "__exit__"),
    ("broker", EmbeddedBroker, "start", "stop"),
    ("bus", Bus, "start", "stop"),
    ("results", ResultWriter, "__init__", "close"),
    ("pictures", Painter, "__init__", "close"),
    ("display", Display, "start", "close"),
    ("supervisor", Supervisor, "__init__", "close"),
)
"""What is started, in order: its name, its class, what starts it and what stops it."""


class RefusedError(Exception):
    """What a step is made to fail with."""


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is started and stopped, as it happens, in this process."""
    happened: list[str] = []

    def told(what: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            result = done(*arguments, **options)
            happened.append(what)
            return result

        return instead

    for name, owner, start, stop in PARTS:
        monkeypatch.setattr(owner, start, told(f"+{name}", getattr(owner, start)))
        monkeypatch.setattr(owner, stop, told(f"-{name}", getattr(owner, stop)))
    return happened


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Config.model_validate(
        {
            "instance_id": f"steps-{os.getpid()}",
            "streams": [{"stream_id": "cam0", "source": "demo:320x240@10"}],
            "mqtt": {"broker": "embedded"},
            "run": {
                "results": str(tmp_path / "results.jsonl"),
                "save_frames": str(tmp_path / "pictures"),
                "frames": 3,
                "every_frame": True,
            },
        }
    )


def check_unwound(story: list[str], started: int) -> None:
    """Check that the first so many parts were started in order, and stopped in reverse."""
    names = [name for name, *_ in PARTS[:started]]
    begun = [step[1:] for step in story if step[0] == "+"]
    ended = [step[1:] for step in story if step[0] == "-" and step[1:] in begun]
    assert begun == names
    # A part that is stopped twice is stopped where it was first.
    assert list(dict.fromkeys(ended)) == names[::-1]


def test_a_whole_run_stops_in_reverse(story: list[str], config: Config, tmp_path: Path) -> None:
    assert app.run(config, config) == 0
    check_unwound(story, len(PARTS))
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame_seq"] for line in lines] == [0, 1, 2]
    assert list((tmp_path / "runtime").rglob("*.lock")) == []


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


STEPS: tuple[tuple[Any, str, int], ...] = (
    (InstanceLock, "__enter__", 0),
    (lock, "remove_leftover_segments", 1),
    (lookup, "find_pair", 1),
    (EmbeddedBroker, "start", 1),
    (InstanceLock, "update", 2),
    (Bus, "start", 2),
    (ResultWriter, "__init__", 3),
    (Painter, "__init__", 4),
    (Display, "start", 5),
    (app, "Stream", 6),
    (Supervisor, "__init__", 6),
    (Commands, "__init__", 7),
    (Supervisor, "run", 7),
    (Supervisor, "_turn", 7),
)
"""What is made to fail, and how many parts are there by then."""


@pytest.mark.parametrize(("owner", "name", "started"), STEPS, ids=[f"{o.__name__}.{n}" for o, n, _ in STEPS])
def test_a_step_that_fails_leaves_nothing(
    owner: Any,
    name: str,
    started: int,
    story: list[str],
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RefusedError

    monkeypatch.setattr(owner, name, refuse)
    before = descriptors()
    with pytest.raises(RefusedError):
        app.run(config, config)
    check_unwound(story, started)
    assert list((tmp_path / "runtime").rglob("*.lock")) == []
    assert descriptors() <= before + 1, "one more is the resource tracker's"


def test_an_instance_that_can_tell_nobody_any_more_gives_up(
    story: list[str], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Bus) -> None:
        raise RefusedError("as the test says")

    endless = config.model_copy(update={"run": config.run.model_copy(update={"frames": None})})
    monkeypatch.setattr(Bus, "_turn", refuse)
    with pytest.raises(OrionError, match="the MQTT side failed: RefusedError: as the test says") as caught:
        app.run(endless, endless)
    assert caught.value.exit_code == EXIT_GAVE_UP
    check_unwound(story, len(PARTS))
