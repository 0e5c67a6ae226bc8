"""Workers that die, hang, or talk nonsense in the middle of a frame or while starting: real processes, real faults. The
supervisor never blocks, other streams go on, frames are accounted for, and a successor takes over.
"""

from itertools import pairwise
from pathlib import Path

import pytest

from orion.errors import WorkersLostError
from orion.report import describe
from orion.restart import RestartPolicy
from tests.harness import scripted_workers, supervised

FATAL = ["sigkill", "sigsegv", "exit", "sigstop", "spin", "half", "malformed", "oversized", "version"]
FATAL += ["unasked", "flood", "hangup"]


@pytest.mark.parametrize("fault", FATAL)
def test_a_fault_on_a_frame_is_survived(tmp_path: Path, fault: str) -> None:
    workers = scripted_workers([f"{fault}@5", ""], tmp_path)
    sources = ("demo:160x120@20", "demo:160x120@20")
    with supervised(workers, sources, frame_deadline_s=0.5) as (supervisor, collected):
        collected.enough = lambda: bool(collected.named("worker_restarted")) and len(collected.of("cam0")) > 20
        supervisor.run()
    (restarted,) = collected.named("worker_restarted")
    assert restarted["worker_id"] == "w0"
    assert restarted["reason"]
    for stream_id in ("cam0", "cam1"):
        seqs = [result["frame_seq"] for result in collected.of(stream_id)]
        assert seqs == sorted(set(seqs)), "a frame was answered twice or out of order"
    between = sorted(
        moment
        for moment, result in zip(collected.times_s, collected.results, strict=True)
        if result["stream_id"] == "cam1"
    )
    longest_s = max(b - a for a, b in pairwise(between))
    assert longest_s < 1.0, "the other stream stood still"


def test_the_frame_of_a_dead_worker_goes_to_its_successor_once(tmp_path: Path) -> None:
    with supervised(scripted_workers(["sigkill@5"], tmp_path)) as (supervisor, collected):
        collected.enough = lambda: len(collected.results) >= 12
        supervisor.run()
        dropped = dict(supervisor.streams["cam0"].ledger.accounts().dropped)
    assert dropped["worker_error"] == 0
    before, after = collected.results[3]["frame_seq"], collected.results[4]["frame_seq"]
    assert after > before


def test_a_frame_that_kills_twice_is_dropped_and_the_stream_goes_on(tmp_path: Path) -> None:
    policy = RestartPolicy(immediate=100, limit=4, jitter=0.0)
    with supervised(scripted_workers(["sigkill-always@1"], tmp_path), policy=policy) as (supervisor, collected):
        with pytest.raises(WorkersLostError, match="no worker is left"):
            supervisor.run()
        dropped = supervisor.streams["cam0"].ledger.accounts().dropped
    assert dropped["worker_error"] >= 2
    assert collected.results == []
    assert len(collected.named("worker_failed")) == 1


def test_an_exception_costs_the_frame_and_not_the_worker(tmp_path: Path) -> None:
    with supervised(scripted_workers(["exception@3"], tmp_path)) as (supervisor, collected):
        collected.enough = lambda: len(collected.results) >= 10
        supervisor.run()
        assert supervisor.streams["cam0"].ledger.accounts().dropped["worker_error"] == 1
    assert collected.named("worker_restarted") == []


def test_a_provider_that_gave_way_is_told_with_the_frame(tmp_path: Path) -> None:
    with supervised(scripted_workers(["provider@3"], tmp_path)) as (supervisor, collected):
        collected.enough = lambda: len(collected.results) >= 6
        supervisor.run()
        (session,) = describe(supervisor)["models"]["sessions"]
    providers = [result["data"]["metadata"]["provider"] for result in collected.results[:6]]
    assert providers == ["cpu", "cpu", "second", "second", "second", "second"]
    assert (session["provider"], session["fallback"]) == ("second", "first is gone")


def test_a_boot_failure_is_told_apart_from_a_crash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = RestartPolicy(boot_attempts=2, first_delay_s=0.05, jitter=0.0)
    why = "could not start 2 times in a row: as the script says"
    with (
        supervised(scripted_workers(["exception-always"], tmp_path), policy=policy) as (supervisor, collected),
        pytest.raises(WorkersLostError, match=why),
    ):
        supervisor.run()
    assert "RuntimeError: as the script says" in caplog.text
    assert "Traceback" in caplog.text
    assert "ended with code 70" in collected.named("worker_failed")[0]["reason"]


def test_a_crash_while_starting_is_a_crash(tmp_path: Path) -> None:
    with supervised(scripted_workers(["sigsegv"], tmp_path)) as (supervisor, collected):
        collected.enough = lambda: len(collected.results) >= 3
        supervisor.run()
        handle = supervisor.crew.handles["w0"]
        assert (handle.restarts, handle.last_end) == (1, "was killed by signal 11")


def test_the_streams_of_a_failed_worker_move_to_another(tmp_path: Path) -> None:
    policy = RestartPolicy(boot_attempts=1, jitter=0.0)
    workers = scripted_workers(["exception-always", ""], tmp_path)
    with supervised(workers, ("demo:160x120@20", "demo:160x120@20"), policy=policy) as (supervisor, collected):
        collected.enough = lambda: bool(collected.of("cam0")) and bool(collected.of("cam1"))
        supervisor.run()
    assert {result["worker_id"] for result in collected.results} == {"w1"}
    assert collected.named("worker_failed")[0]["worker_id"] == "w0"


def test_a_worker_class_that_does_not_exist_is_a_boot_failure(tmp_path: Path) -> None:
    workers = scripted_workers([""], tmp_path, "tests.detectors:Absent")
    policy = RestartPolicy(boot_attempts=1, jitter=0.0)
    with supervised(workers, policy=policy) as (supervisor, _), pytest.raises(WorkersLostError, match="Absent"):
        supervisor.run()
