"""What commands do to who is known on a stream, also while a worker has a frame of it: nothing old comes back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import run_through, scripted_workers, supervised
from tests.knowing import EVERY_FRAME, KNOWING, OTHER, SOURCE, Operated, heirs, kill, requests, since, told


@pytest.mark.parametrize("then_killed", [False, True])
def test_a_cleared_history_stays_cleared_whatever_is_under_way(tmp_path: Path, then_killed: bool) -> None:
    with supervised(
        scripted_workers(["gate@4"], tmp_path, KNOWING), (SOURCE,), capture=EVERY_FRAME, frame_deadline_s=50
    ) as (supervisor, collected):
        operated = Operated(supervisor, collected, tmp_path)
        operated.ask_at_the_gate("clear_auto_focus_history")

        def steps() -> Iterator[bool]:
            while len(collected.results) < 4:
                yield False
            # The answer that was under way has just come, with all that was known.
            assert supervisor.streams["cam0"].known.vanished == ()
            if then_killed:
                kill(supervisor.crew.handles["w0"])
            while len(collected.results) < 8:
                yield False

        run_through(supervisor, collected, steps())
        assert [answer["data"] for answer in operated.answers()] == [{"auto_focus_history_cleared": True}]
    notes = requests(tmp_path)
    assert [note["given"] for note in notes if note["given"] is not None] == []
    assert len(heirs(notes)) == int(then_killed)
    assert [note["answered"].people[0].answers for note in notes[:6]] == [1, 2, 3, 4, 1, 2]
    assert len(since(collected.results)) == 2
    assert collected.named("person_vanished") == []


@pytest.mark.parametrize("then_killed", [False, True])
def test_another_source_is_another_place_whatever_is_under_way(tmp_path: Path, then_killed: bool) -> None:
    """The frame that the worker has, and those that wait or are being read, are of the source before."""
    with supervised(
        scripted_workers(["gate@4"], tmp_path, KNOWING), (SOURCE,), capture=EVERY_FRAME, frame_deadline_s=50
    ) as (supervisor, collected):
        operated = Operated(supervisor, collected, tmp_path)
        streams = [{"stream_id": "cam0", "source": OTHER}]
        operated.ask_at_the_gate("update_config", config={"streams": streams})
        known = supervisor.streams["cam0"].known

        def steps() -> Iterator[bool]:
            while len(collected.results) < 4:
                yield False
            assert known.vanished == ()
            if then_killed:
                kill(supervisor.crew.handles["w0"])
            while len(collected.results) < 10:
                yield False
            assert len(known.vanished) == 1, "the new source has its own people"

        run_through(supervisor, collected, steps())
        assert [answer["data"]["applied"] for answer in operated.answers()] == [["streams.cam0.source"]]
    notes = told(tmp_path)
    assert [note for note in notes if note.get("given") is not None] == []
    (forgot,) = [place for place, note in enumerate(notes) if "forgotten" in note]
    before, after = ([n["answered"].people[0].answers for n in part] for part in (notes[:forgot], notes[forgot + 1 :]))
    assert before[:4] == [1, 2, 3, 4], "the answer that was under way"
    assert before[4:6] == ([1, 2] if then_killed else [5, 6])[: len(before) - 4], "the old source's last pictures"
    assert len(before) > 4
    assert after == list(range(1, len(after) + 1))
    assert collected.named("person_vanished") == []


def test_nobody_is_told_of_on_a_stream_that_was_removed(tmp_path: Path) -> None:
    """With the frame that is under way somebody has been gone for a second."""
    with supervised(
        scripted_workers(["gate@16"], tmp_path, KNOWING), (SOURCE,), capture=EVERY_FRAME, frame_deadline_s=50
    ) as (supervisor, collected):
        operated = Operated(supervisor, collected, tmp_path)
        streams = [{"stream_id": "cam1", "source": SOURCE}]
        operated.ask_at_the_gate("update_config", config={"streams": streams})
        collected.enough = lambda: len(collected.of("cam1")) >= 3
        supervisor.run()
    last = requests(tmp_path)[-1]["answered"]
    assert last.people[0].answers == len(collected.of("cam0")) == 16
    assert last.time_s - last.vanished[0].since_s >= 1.0
    assert collected.named("person_vanished") == []


def test_the_figures_of_attention_come_with_exits_and_the_places_of_who_is_looked_for(tmp_path: Path) -> None:
    with supervised(scripted_workers([""], tmp_path, KNOWING), (SOURCE,), capture=EVERY_FRAME) as (
        supervisor,
        collected,
    ):
        operated = Operated(supervisor, collected, tmp_path)

        def steps() -> Iterator[bool]:
            while len(collected.results) < 3:
                yield False
            operated.ask("get_auto_focus_stats")
            while not operated.answers():
                yield False

        run_through(supervisor, collected, steps())
        (answer,) = operated.answers()
    told_of = json.loads(json.dumps(answer["data"]))
    figures = {name: told_of[name] for name in ("searches", "search_share", "vanished", "found_again", "exits")}
    assert figures == {
        "searches": 7, "search_share": 0.01, "vanished": 1, "found_again": 0,
        "exits": [{"x": 0.5, "y": 0.25, "vanished": 3, "appeared": 2}],
    }  # fmt: skip
    assert told_of["vanished_now"] == collected.results[-1]["data"]["vanished"]
    assert told_of["streams"]["cam0"]["vanished_now"] == told_of["vanished_now"]
