"""Who is known on a stream outlives the process that knew them: real workers, killed, restarted and changed under a
search for somebody who vanished.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from orion.sources import make_source
from tests.harness import Collected, run_through, scripted_workers, supervised
from tests.knowing import KNOWING, SOURCE, gone_s, heirs, kill, requests, since, told


def inherited(folder: Path, collected: Collected, worker_id: str = "w0", deaths: int = 1) -> None:
    """Check that nothing got lost between processes, and that nobody was told of twice."""
    notes = requests(folder, worker_id)
    changes = heirs(notes)
    assert len(changes) == deaths
    for last, first in changes:
        assert first["given"] == last["answered"]
    firsts = [id(first) for _, first in changes]
    assert [note for note in notes if note["given"] is not None and id(note) not in firsts] == []
    results = collected.of("cam0")
    assert all(len(result["data"]["vanished"]) == 1 for result in results)
    assert len(since(results)) == 1
    (event,) = collected.named("person_vanished")
    assert (event["stream_id"], event["state"], event["since"]) == ("cam0", "running", since(results)[0])
    assert event["bbox"] == {"x": 10, "y": 20, "width": 30, "height": 40}
    assert "last seen at x 10, y 20, 30 x 40 pixels" in event["reason"]
    assert event["run_id"]
    assert event["timestamp"] > event["since"]


@pytest.mark.parametrize("death", [5, 45])
def test_a_worker_that_is_killed_leaves_its_successor_who_is_known(tmp_path: Path, death: int) -> None:
    """The one dies before the event was told, the other after it."""
    with supervised(scripted_workers([f"sigkill@{death}"], tmp_path, KNOWING), (SOURCE,)) as (supervisor, collected):
        collected.enough = lambda: bool(collected.named("worker_restarted")) and gone_s(supervisor) > 3
        supervisor.run()
        assert supervisor.describe()["streams"][0]["vanished"] == 1
    inherited(tmp_path, collected)
    assert requests(tmp_path)[-1]["answered"].people[0].answers == len(requests(tmp_path))


def test_a_worker_that_dies_of_its_first_frame_leaves_it_too(tmp_path: Path) -> None:
    """The successors die before they answer a frame: what was known is still there for the third."""
    with supervised(scripted_workers([""], tmp_path, KNOWING), (SOURCE,)) as (supervisor, collected):
        handle = supervisor.crew.handles["w0"]

        def steps() -> Iterator[bool]:
            while len(collected.results) < 5:
                yield False
            kill(handle)
            while not collected.named("worker_restarted"):
                yield False
            while gone_s(supervisor) < 3:
                yield False

        def kill_again(event: dict[str, Any]) -> None:
            collected.events.append(event)
            if event["event"] == "worker_restarted" and len(collected.named("worker_restarted")) < 3:
                kill(handle)

        collected.event = kill_again  # type: ignore[method-assign]
        run_through(supervisor, collected, steps())
        assert handle.restarts == 3
    inherited(tmp_path, collected)


def test_a_restart_by_command_and_a_change_of_models_lose_nobody(tmp_path: Path) -> None:
    workers = scripted_workers(["@1"], tmp_path, KNOWING)
    with supervised(workers, (SOURCE,)) as (supervisor, collected):
        crew = supervisor.crew

        def steps() -> Iterator[bool]:
            while len(collected.results) < 5:
                yield False
            exchange = crew.change_models(replace(workers[0].detector, model_640="@2"))
            while not exchange.swap.over:
                yield False
            crew.restart(crew.handles["w0"])
            while not collected.named("worker_restarted"):
                yield False
            while gone_s(supervisor) < 3:
                yield False

        run_through(supervisor, collected, steps())
    assert len(collected.named("model_reloaded")) == 1
    inherited(tmp_path, collected)


def test_a_stream_that_moves_takes_along_who_is_known(tmp_path: Path) -> None:
    """The second worker comes late, and gets one of the two streams that the first one had."""
    with supervised(scripted_workers(["", "leave@3"], tmp_path, KNOWING), (SOURCE,) * 3) as (supervisor, collected):
        crew, streams = supervisor.crew, supervisor.streams
        moved: list[str] = []

        def steps() -> Iterator[bool]:
            while not collected.named("worker_failed") or len({one["stream_id"] for one in collected.results[-9:]}) < 3:
                yield False
            crew.restart(crew.handles["w1"])
            while not (moved or any(stream.worker_id == "w1" for stream in streams.values())):
                yield False
            moved.extend(stream_id for stream_id, stream in streams.items() if stream.worker_id == "w1")
            while collected.of(moved[0])[-1]["worker_id"] != "w1":
                yield False

        run_through(supervisor, collected, steps())
    before = requests(tmp_path, "w0", moved[0])[-1]
    after = next(note for note in reversed(requests(tmp_path, "w1", moved[0])) if note["given"] is not None)
    assert after["given"] == before["answered"]
    assert {"pid": before["pid"], "forgotten": moved[0]} in told(tmp_path)
    assert len(since(collected.of(moved[0]))) == 1


def test_a_stream_that_comes_back_to_a_worker_that_forgot_it_brings_along_who_is_known(tmp_path: Path) -> None:
    """The other worker leaves with the first frame that it gets, so that its process before gave the last answer."""
    workers = scripted_workers(["", "leave-always@1"], tmp_path, KNOWING)
    with supervised(workers, (SOURCE,) * 3) as (supervisor, collected):
        crew = supervisor.crew

        def forgotten() -> list[str]:
            return [note["forgotten"] for note in told(tmp_path) if "forgotten" in note]

        def steps() -> Iterator[bool]:
            while not collected.named("worker_failed") or len({one["stream_id"] for one in collected.results[-9:]}) < 3:
                yield False
            crew.restart(crew.handles["w1"])
            while len(collected.named("worker_failed")) < 2:
                yield False
            count = len(collected.of(forgotten()[0]))
            while len(collected.of(forgotten()[0])) < count + 2:
                yield False

        run_through(supervisor, collected, steps())
    (moved,) = forgotten()
    assert len(since(collected.of(moved))) == 1
    notes = requests(tmp_path, "w0", moved)
    (place,) = [place for place, note in enumerate(notes) if note["given"] is not None]
    assert notes[place]["given"] == notes[place - 1]["answered"]
    assert notes[place]["pid"] == notes[place - 1]["pid"]


def test_a_pause_drops_nobody(tmp_path: Path) -> None:
    with supervised(scripted_workers([""], tmp_path, KNOWING), (SOURCE, SOURCE)) as (supervisor, collected):
        stream, handle = supervisor.streams["cam0"], supervisor.crew.handles["w0"]

        def steps() -> Iterator[bool]:
            while not (collected.of("cam0") and collected.of("cam1")):
                yield False
            stream.pause()
            while stream.ledger.leased:
                yield False
            handle_pid = handle.pid
            supervisor.crew.restart(handle)
            while handle.pid == handle_pid or not collected.named("worker_restarted"):
                yield False
            stream.resume()
            count = len(collected.of("cam0"))
            while len(collected.of("cam0")) < count + 2:
                yield False

        run_through(supervisor, collected, steps())
    ((last, first),) = heirs(requests(tmp_path))
    assert first["given"] == last["answered"]
    assert len(since(collected.of("cam0"))) == 1


def test_streams_of_one_worker_are_told_apart(tmp_path: Path) -> None:
    with supervised(scripted_workers([""], tmp_path, KNOWING), (SOURCE, SOURCE)) as (supervisor, collected):

        def steps() -> Iterator[bool]:
            while not (collected.of("cam0") and collected.of("cam1")):
                yield False
            kill(supervisor.crew.handles["w0"])
            while len(collected.named("person_vanished")) < 2 or not collected.named("worker_restarted"):
                yield False
            while min(gone_s(supervisor, stream_id) for stream_id in ("cam0", "cam1")) < 3:
                yield False

        run_through(supervisor, collected, steps())
    assert sorted(event["stream_id"] for event in collected.named("person_vanished")) == ["cam0", "cam1"]
    for stream_id in ("cam0", "cam1"):
        ((last, first),) = heirs(requests(tmp_path, "w0", stream_id))
        assert first["given"] == last["answered"]
        assert len(since(collected.of(stream_id))) == 1


def test_pictures_of_another_size_have_other_places(tmp_path: Path) -> None:
    with supervised(scripted_workers([""], tmp_path, KNOWING), (SOURCE,)) as (supervisor, collected):
        stream, handle = supervisor.streams["cam0"], supervisor.crew.handles["w0"]

        def steps() -> Iterator[bool]:
            while len(collected.results) < 4:
                yield False
            stream.change(stream.settings, make_source("demo:320x240@30"))
            while collected.results[-1]["data"]["metadata"]["frame_width"] != 320:
                yield False
            kill(handle)
            while not collected.named("worker_restarted"):
                yield False
            count = len(collected.results)
            while len(collected.results) < count + 2:
                yield False

        run_through(supervisor, collected, steps())
    notes = requests(tmp_path)
    given = [note for note in notes if note["given"] is not None]
    assert [note["width"] for note in given] == [320], "what the second process got is of the new size"
    first_of_size = next(note for note in notes if note["width"] == 320)
    assert given[0]["given"].vanished == first_of_size["answered"].vanished


def test_a_stream_that_comes_back_under_its_id_is_a_new_one(tmp_path: Path) -> None:
    with supervised(scripted_workers([""], tmp_path, KNOWING), (SOURCE, SOURCE)) as (supervisor, collected):
        settings = supervisor.streams["cam1"].settings

        def steps() -> Iterator[bool]:
            while not (collected.of("cam0") and len(collected.of("cam1")) > 2):
                yield False
            supervisor.remove_stream("cam1")
            supervisor.add_stream(settings, make_source(SOURCE))
            while not supervisor.streams["cam1"].known.vanished:
                yield False

        run_through(supervisor, collected, steps())
    notes = requests(tmp_path, "w0", "cam1")
    assert [note["given"] for note in notes if note["given"] is not None] == []
    assert [note["answered"].people[0].answers for note in notes].count(1) == 2
    assert len(since(collected.of("cam1"))) == 2
