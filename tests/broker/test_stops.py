"""Ordered stops in the moments when most is under way: a change of models, an outage with results in the outbox."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.haunted import ENTRY
from benchmarks.mosquitto import HOST, Mosquitto, TimeOverError
from benchmarks.rig import Instance, Listener, alive, children, write_models
from benchmarks.wall_clock import FOLDER
from tests.instances import until

STOPS_WITHIN_S = 5.0
NAME = "sensor-5"
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def haunted(folder: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Instance, Listener]]:
    """Run an instance of one stream and two workers whose detector does what it is told, and wait until it is well."""
    write_models(folder)
    monkeypatch.setenv(FOLDER, str(folder))
    config: dict[str, Any] = {
        "streams": [{"stream_id": "cam0", "source": "demo:160x120@10"}],
        "models": {"person_detector": {"model_dir": str(folder), "size": "n"}},
        "workers": {"count": 2, "threads": 1},
        "mqtt": {"broker": f"mqtt://{HOST}:{mosquitto.port}", "outbox": {"replay_delay_s": 1.0}},
    }
    with Listener(mosquitto.port, NAME) as listener, Instance(folder, NAME, config, ENTRY) as instance:
        until(lambda: len(listener.results) > 5, "results")
        until(lambda: [w["state"] for w in listener.do("get_status")["workers"]] == ["idle"] * 2, "both workers")
        yield instance, listener


def check_stop(instance: Instance, number: signal.Signals) -> None:
    """Stop it in order; nothing may be left."""
    below, began_s = children(instance.pid), time.monotonic()
    instance.send(number)
    assert instance.wait() == 0, instance.log()
    assert time.monotonic() - began_s < STOPS_WITHIN_S
    until(lambda: not any(map(alive, below)), "the end of all processes", 2.0)
    assert instance.segments() == []
    assert list((instance.folder / "runtime").rglob("*.lock")) == []


@pytest.mark.parametrize("number", SIGNALS, ids=str)
@pytest.mark.parametrize("phase", ["preparing", "committing"])
def test_a_signal_during_a_change_of_models_stops_it(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, number: signal.Signals
) -> None:
    with haunted(tmp_path, mosquitto, monkeypatch) as (instance, listener):
        (tmp_path / "draft").write_text(f"{phase}:spin")
        (tmp_path / "draft").rename(tmp_path / "fault")
        with suppress(TimeOverError):
            listener.ask("set_model_size", limit_s=0.1, size="s")
        until((tmp_path / "happened").exists, "a worker hangs in the change", 10.0)
        check_stop(instance, number)


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_signal_during_an_outage_keeps_what_the_outbox_holds(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with haunted(tmp_path, mosquitto, monkeypatch) as (instance, listener):
        mosquitto.kill()
        outbox = tmp_path / "state" / "orion" / NAME / "outbox.sqlite3"
        until(outbox.exists, "results go to the outbox", 10.0)
        seen = len(instance.written())
        until(lambda: len(instance.written()) > seen + 10, "results go on", 10.0)
        check_stop(instance, number)
        assert outbox.exists()
        written = instance.written()
        mosquitto.start()
        instance.start()
        until(lambda: written <= listener.results.keys(), "every result of the outage arrives", 30.0)
        check_stop(instance, number)
    assert not outbox.exists()
