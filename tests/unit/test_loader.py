"""Another pair is loaded beside the present one, and what stands in its way is told."""

import select
import threading

import pytest

from orion.loader import Loader, Pair
from orion.messages import DetectorSpec, Prepare, PrepareFailed

SPEC = DetectorSpec("a.onnx", None, 0.5, 0.45, ("person",), "cpu", 1)


def test_a_machine_that_starts_no_thread_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def load(_: DetectorSpec) -> Pair:
        raise OSError("no such file")

    loader = Loader(load)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert loader.prepare(Prepare(1, SPEC)) == PrepareFailed(1, "can't start new thread")
    assert not loader.running
    assert loader.commit(1) is None
    assert loader.prepare(Prepare(2, SPEC)) is None, "the next attempt is not held up by the one before"
    assert select.select([loader.fileno()], [], [], 30)[0], "the thread has ended"
    assert loader.collect() == PrepareFailed(2, "no such file")
    loader.close()
