"""Workers that die, hang, grow, or talk nonsense, whatever they are doing: real processes, real faults. The
supervisor never blocks, other streams go on, frames are accounted for, and a successor takes over.
"""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from orion.capture import CaptureSettings
from orion.errors import ModelError, WorkersLostError
from orion.exchange import Exchange
from orion.handle import Failed
from orion.report import describe
from orion.restart import RestartPolicy
from tests.blinding import SEEN_FRAMES
from tests.harness import Collected, scripted_workers, supervised
from tests.losing import QUICK_FRAMES
from tests.models import seeing

KILLS = ["sigkill", "sigsegv", "exit", "half", "malformed", "oversized", "version", "unasked"]
"""The supervisor knows at once."""
HANGS = ["sigstop", "spin", "flood", "hangup", "grow"]
"""The supervisor finds out by its own clock, or by the kernel's word."""
BY_PHASE = {
    "loading": [*KILLS, "exception", *HANGS],
    "idle": [*KILLS, "sigstop", "flood", "hangup", "grow"],
    "reading": ["sigkill", "sigsegv", "exit", "sigstop", "spin"],
    "inferring": [*KILLS, *HANGS],
    "preparing": [*KILLS, "sigstop", "flood", "hangup", "grow"],
    "committing": [*KILLS, "exception", *HANGS],
}
"""What ends a worker in each phase. An exception costs a frame or a change of models only, but for those here; an
endless loop in a thread beside the main one stops nothing."""
AFTER_KILL_S, AFTER_HANG_S = 2.0, 3.0
FPS = 20


@pytest.mark.parametrize("phase", BY_PHASE)
def test_every_fault_in_every_phase_is_survived_within_its_bound(tmp_path: Path, phase: str) -> None:
    faults = BY_PHASE[phase]
    workers = scripted_workers([f"{phase}:{','.join(faults)}", "none:"], tmp_path, "tests.detectors:Sequenced")
    policy = RestartPolicy(immediate=1000, limit=1000, boot_attempts=1000, first_delay_s=0.1, jitter=0.0)
    sources = (f"demo:160x120@{FPS}", f"demo:160x120@{FPS}")
    memory = tmp_path / "w0.done"
    with supervised(workers, sources, policy=policy, memory_limit_mb=400) as (supervisor, collected):

        def enough() -> bool:
            """Change models, where that meets the fault, once the last one is over: it has the next one at once."""
            crew, done = supervisor.crew, _faults(memory)
            if done and _answers_again_s(collected, done[-1][1]) is None:
                return False
            if phase in {"preparing", "committing"} and (crew.exchange is None or crew.exchange.swap.over):
                crew.change_models(workers[0].detector)
            return len(done) == len(faults)

        collected.enough = enough
        supervisor.run()
        handle = supervisor.crew.handles["w0"]
        assert handle.restarts == len(faults) * (2 if phase == "loading" else 1), handle
        own = list(Path("/dev/shm").glob(f"orion.harness.{supervisor.settings.run_id}.*"))
        assert len(own) == 2, "one segment a stream"
        accounts = supervisor.streams["cam0"].ledger.accounts()
        # A change of models begins as soon as a worker is READY: the one that inherits a frame may die with it too.
        assert phase in {"preparing", "committing"} or accounts.dropped["worker_error"] == 0, "no frame met two deaths"
    seqs = [result["frame_seq"] for result in collected.of("cam0")]
    assert seqs == sorted(set(seqs)), "a frame was answered twice or out of order"
    others = [moment for moment, result in _timed(collected) if result["stream_id"] == "cam1"]
    for fault, happened_s in _faults(memory):
        back_s = _answers_again_s(collected, happened_s)
        assert back_s is not None
        limit_s = AFTER_HANG_S if fault in HANGS else AFTER_KILL_S
        assert back_s - happened_s < limit_s, f"{fault} while {phase}: {back_s - happened_s:.2f} s"
        assert any(happened_s < moment < back_s for moment in others), "the other stream was not answered meanwhile"
    # What the other stream's rate loses by it, if anything, is told by `benchmarks.chaos`.
    other = supervisor.streams["cam1"].ledger.accounts()
    assert supervisor.crew.handles["w1"].restarts == 0
    assert {reason for reason, count in other.dropped.items() if count} <= {"superseded", "shutdown"}


def _faults(memory: Path) -> list[tuple[str, float]]:
    lines = memory.read_text().splitlines() if memory.exists() else []
    return [(fault, float(moment)) for fault, moment in map(str.split, lines)]


def _timed(collected: Collected) -> list[tuple[float, dict[str, Any]]]:
    return list(zip(collected.times_s, collected.results, strict=True))


def _answers_again_s(collected: Collected, fault_s: float) -> float | None:
    """Return when the successor of a worker that had a fault gave its first result."""
    events = zip(collected.event_times_s, collected.events, strict=True)
    restarts = (at_s for at_s, event in events if at_s > fault_s and event["event"] == "worker_restarted")
    ready_s = next(restarts, float("inf"))
    results = (at_s for at_s, result in _timed(collected) if at_s > ready_s and result["stream_id"] == "cam0")
    return next(results, None)


def test_a_worker_whose_end_decides_a_change_of_models_comes_back_with_the_new_pair(tmp_path: Path) -> None:
    workers = scripted_workers(["@1", "spin"], tmp_path, "tests.detectors:Changing")
    new = replace(workers[0].detector, model_640="@2")
    with supervised(workers, (f"demo:160x120@{FPS}",) * 2) as (supervisor, collected):
        crew = supervisor.crew
        killed: list[int] = []

        def enough() -> bool:
            """Let the change wait for the start of one worker alone, and end that start."""
            exchange = crew.exchange or crew.change_models(new)
            pid = crew.handles["w1"].pid
            if not killed and exchange.swap.loaded and pid is not None:
                assert exchange.swap.owing == {"w1"}
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return len(collected.of("cam1")) >= 3

        collected.enough = enough
        supervisor.run()
        assert crew.exchange is not None
        assert crew.exchange.swap.phase == "committed"
    assert {result["data"]["metadata"]["model_name"] for result in collected.of("cam1")} == {"@2"}
    assert collected.of("cam0")[-1]["data"]["metadata"]["model_name"] == "@2"


def test_a_worker_that_leaves_by_itself_is_not_started_again(tmp_path: Path) -> None:
    with supervised(scripted_workers(["leave@3", ""], tmp_path), (f"demo:160x120@{FPS}",) * 2) as (
        supervisor,
        collected,
    ):
        collected.enough = lambda: bool(collected.named("worker_failed")) and len(collected.of("cam0")) > 10
        supervisor.run()
        assert supervisor.crew.handles["w0"].restarts == 0
    (failed,) = collected.named("worker_failed")
    assert "left by itself" in failed["reason"]


def test_a_worker_that_was_given_up_can_be_tried_again_and_gets_a_stream_back(tmp_path: Path) -> None:
    policy = RestartPolicy(boot_attempts=1, jitter=0.0)
    workers = scripted_workers(["exception", ""], tmp_path)
    with supervised(workers, (f"demo:160x120@{FPS}",) * 2, policy=policy) as (supervisor, collected):

        def enough() -> bool:
            handle = supervisor.crew.handles["w0"]
            if isinstance(handle.state, Failed):
                supervisor.crew.restart(handle)
            return bool(collected.results[-1]["worker_id"] == "w0")

        collected.enough = enough
        supervisor.run()
        assert sorted(stream.worker_id for stream in supervisor.streams.values()) == ["w0", "w1"]
    assert len(collected.named("worker_failed")) == 1


def test_a_worker_whose_streams_were_removed_gets_one_of_another(tmp_path: Path) -> None:
    with supervised(scripted_workers(["", ""], tmp_path), (f"demo:160x120@{FPS}",) * 4) as (supervisor, collected):

        def enough() -> bool:
            last = collected.results[-1]
            if len(supervisor.streams) == 4 and last["worker_id"] == "w1" and collected.of("cam0"):
                for stream_id in ("cam0", "cam2"):
                    supervisor.remove_stream(stream_id)
            return last["worker_id"] == "w0" and last["stream_id"] in {"cam1", "cam3"}

        collected.enough = enough
        supervisor.run()
        assert sorted(stream.worker_id for stream in supervisor.streams.values()) == ["w0", "w1"]


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


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("no-sessions", "sent what is no message: Ready.info.sessions: Expected `array` of"),
        ("other-session@3", "sent a result of a session that it has not: 320"),
        ("endless@3", "sent what is no message: FrameResult.outcome.inference_ms: Expected `float` <="),
    ],
)
def test_what_cannot_be_costs_the_worker_that_says_it_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: str, reason: str
) -> None:
    with supervised(scripted_workers([script], tmp_path)) as (supervisor, collected):
        collected.enough = lambda: len(collected.results) >= 6
        supervisor.run()
        assert len(supervisor.crew.handles["w0"].deaths_s) == 1
        assert describe(supervisor)["latency_ms"]["inference"]["p99"] < 100
    assert reason in caplog.text


def test_a_worker_that_has_changed_before_it_was_told_stops_the_change(tmp_path: Path) -> None:
    workers = scripted_workers(["@1"], tmp_path, "tests.detectors:Hasty")
    new = replace(workers[0].detector, model_640="@2")
    with supervised(workers) as (supervisor, collected):
        exchanges: list[Exchange] = []

        def enough() -> bool:
            if not exchanges:
                exchanges.append(supervisor.crew.change_models(new))
            return len(collected.named("worker_restarted")) == 1

        collected.enough = enough
        supervisor.run()
    (exchange,) = exchanges
    assert (exchange.swap.phase, "sent Committed out of turn" in exchange.swap.reason) == ("aborted", True)
    assert {result["data"]["metadata"]["model_name"] for result in collected.results} == {"@1"}


def test_every_file_begins_with_its_own_worker(tmp_path: Path) -> None:
    with supervised(scripted_workers(["", "late"], tmp_path), ("demo:160x120@30",) * 2) as (supervisor, collected):
        collected.enough = lambda: len(collected.of("cam1")) >= 3
        supervisor.run()
    assert [collected.of(stream_id)[0]["frame_seq"] for stream_id in ("cam0", "cam1")] == [0, 0]
    assert len(collected.of("cam0")) > 20, "it was long on its way"


def test_a_provider_that_gave_way_is_told_with_the_frame(tmp_path: Path) -> None:
    with supervised(scripted_workers(["provider@3"], tmp_path)) as (supervisor, collected):
        collected.enough = lambda: len(collected.results) >= 6
        supervisor.run()
        (session,) = describe(supervisor)["models"]["sessions"]
    providers = [result["data"]["metadata"]["provider"] for result in collected.results[:6]]
    assert providers == ["cpu", "cpu", "second", "second", "second", "second"]
    assert (session["provider"], session["fallback"]) == ("second", "first is gone")


def test_a_provider_that_fails_gives_way_to_a_slow_cpu_and_the_worker_lives(tmp_path: Path) -> None:
    """The frame after it is held to the times of `cpu`: to those of the lost provider the worker would be hung."""
    path = str(seeing(tmp_path / "large.onnx", 640))
    with supervised(scripted_workers([path], tmp_path, "tests.losing:LosingDetector")) as (supervisor, collected):
        collected.enough = lambda: collected.results[-1]["data"]["metadata"]["provider"] == "cpu"
        supervisor.run()
        (session,) = describe(supervisor)["models"]["sessions"]
        dropped = dict(supervisor.streams["cam0"].ledger.accounts().dropped)
        assert supervisor.crew.handles["w0"].deaths_s == []
    providers = [result["data"]["metadata"]["provider"] for result in collected.results]
    assert providers == ["openvino"] * QUICK_FRAMES + ["cpu"]
    assert collected.results[-1]["timing"]["inference_ms"] > 1500
    assert session["fallback"] == "openvino failed while running: the device was lost"
    assert dropped["worker_error"] >= 2


def test_a_worker_that_goes_blind_is_found_out_and_replaced_and_no_result_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(seeing(tmp_path / "large.onnx", 640))
    capture = CaptureSettings(every_frame=True)
    workers = scripted_workers([path], tmp_path, "tests.blinding:BlindingDetector")
    with supervised(workers, ("demo:160x120@20",), capture=capture) as (supervisor, collected):
        restarted: list[int] = []

        def enough() -> bool:
            if collected.named("worker_restarted"):
                restarted.append(len(collected.results))
            return len(restarted) > SEEN_FRAMES

        collected.enough = enough
        supervisor.run()
        handle = supervisor.crew.handles["w0"]
        assert (handle.restarts, handle.last_end) == (1, "does not see")
        assert sum(supervisor.streams["cam0"].ledger.accounts().dropped.values()) == 0
    [blind] = collected.named("detector_blind")
    assert blind["worker_id"] == "w0"
    assert blind["reason"].startswith("640, ")
    assert "found nobody" in blind["reason"]
    names = [event["event"] for event in collected.events]
    assert names.index("detector_blind") < names.index("worker_restarted")
    seqs = [result["frame_seq"] for result in collected.results]
    assert seqs == list(range(len(seqs))), "a frame was lost, or answered twice"
    counts = [result["data"]["count"] for result in collected.results]
    before, after = counts[:SEEN_FRAMES], counts[restarted[0] :]
    assert 0 not in before + after
    assert "detector_blind: 640, " in caplog.text


def test_a_model_with_which_cpu_is_blind_is_of_no_use_and_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(seeing(tmp_path / "large.onnx", 640))
    workers = scripted_workers([path], tmp_path, "tests.blinding:BlindDetector")
    why = "cpu does not see the known pictures: 640, drawn person: .* found nobody"
    with supervised(workers) as (supervisor, collected):
        collected.enough = lambda: bool(collected.results)
        with pytest.raises(ModelError, match=why):
            supervisor.run()
    assert collected.results == []
    assert "Traceback" not in caplog.text


def test_a_model_that_sees_nobody_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with supervised(scripted_workers(["sees-nobody"] * 2, tmp_path), ("demo:160x120@20",) * 2) as (
        supervisor,
        collected,
    ):
        collected.enough = lambda: bool(collected.of("cam0")) and bool(collected.of("cam1"))
        supervisor.run()
        assert not describe(supervisor)["models"]["sessions"][0]["sees"]
    assert caplog.text.count("none sees nobody in the drawn pictures: ") == 1


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


@contextmanager
def few_descriptors() -> Iterator[Callable[[], None]]:
    """Give what lets this process open nothing more, but in the place of what it closes; ends with the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def begin() -> None:
        os.close(lowest := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))

    try:
        yield begin
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_that_the_system_has_no_room_for_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = RestartPolicy(boot_attempts=1000, first_delay_s=0.05, longest_delay_s=0.1, jitter=0.0)
    workers = scripted_workers(["exit@5", ""], tmp_path)
    with (
        ExitStack() as limit,
        supervised(workers, (f"demo:160x120@{FPS}",) * 2, policy=policy) as (supervisor, collected),
    ):
        handle = supervisor.crew.handles["w0"]
        begin = limit.enter_context(few_descriptors())
        opened: list[int] = []

        def enough() -> bool:
            if len(collected.of("cam0")) == 2 and not opened:
                opened.append(_descriptors())
                begin()
            if handle.boot_failures >= 3:
                limit.close()
            return len(collected.of("cam0")) > 8

        collected.enough = enough
        supervisor.run()
        assert handle.restarts == 1
        assert _descriptors() <= opened[0], "a start that failed kept descriptors"
    assert "w0 could not be started: Too many open files; starting again in" in caplog.text
    assert collected.named("worker_failed") == []


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_without_room_for_any_worker_it_gives_up_with_the_reason(tmp_path: Path) -> None:
    policy = RestartPolicy(boot_attempts=2, first_delay_s=0.05, jitter=0.0)
    with (
        few_descriptors() as begin,
        supervised(scripted_workers(["exit@5"], tmp_path), policy=policy) as (supervisor, collected),
    ):

        def enough() -> bool:
            if len(collected.results) == 2:
                begin()
            return False

        collected.enough = enough
        with pytest.raises(WorkersLostError, match="w0 could not be started: Too many open files; could not start 2"):
            supervisor.run()
    assert len(collected.named("worker_failed")) == 1


def test_a_first_start_that_hangs_ends_at_its_deadline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    began_s = time.monotonic()
    with supervised(scripted_workers(["spin"], tmp_path), start_deadline_s=3.0) as (supervisor, collected):
        collected.enough = lambda: len(collected.results) >= 3
        supervisor.run()
        assert supervisor.crew.handles["w0"].restarts == 1
    assert 3.0 <= collected.times_s[0] - began_s < 10.0
    assert "was not ready after 3.0 s" in caplog.text


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
