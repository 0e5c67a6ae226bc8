"""What the first signal does, and the second: real signals to a process of their own, with a clock that is set."""

import signal
import subprocess
import sys
import threading

import pytest

from orion.signals import held_back
from tests.conftest import REPOSITORY

_PRESSES = """
import signal
import sys
from orion.signals import StopSignals

now_s = 5.0
stops = StopSignals(lambda: now_s)
stops.install()
stops.connect(lambda name: print("stop", name, flush=True), lambda: print("forced", flush=True))
for press in sys.argv[1:]:
    name, _, after_s = press.partition("@")
    now_s = 5.0 + float(after_s)
    signal.raise_signal(signal.Signals[name])
print("stopped in order")
"""


@pytest.mark.parametrize(
    ("presses", "code", "said"),
    [
        ("SIGINT@0", 0, "stop SIGINT, stopped in order"),
        ("SIGINT@0 SIGINT@0.1 SIGINT@0.29", 0, "stop SIGINT, stopped in order"),
        ("SIGINT@0 SIGINT@0.1 SIGINT@0.31", 130, "stop SIGINT, forced"),
        ("SIGINT@0 SIGTERM@0.1", 130, "stop SIGINT, forced"),
    ],
)
def test_a_second_signal_forces_the_exit_unless_it_is_the_same_press(presses: str, code: int, said: str) -> None:
    command = [sys.executable, "-c", _PRESSES, *presses.split()]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (code, said.split(", "))
    last = presses.rsplit(maxsplit=1)[-1].partition("@")[0]
    assert done.stderr == (f"forced exit: {last} came before the run had stopped in order\n" if code else "")


def test_what_is_held_back_comes_afterwards_whoever_takes_it() -> None:
    came: list[int] = []
    let_go = threading.Event()
    # Not masked, so that the kernel may give it the signal.
    other = threading.Thread(target=let_go.wait)
    other.start()
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with held_back():
            signal.pthread_kill(other.ident or 0, signal.SIGTERM)
            let_go.set()
            other.join(10)
            assert came == []
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
