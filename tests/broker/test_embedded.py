"""The embedded broker as a process: its port, its end, and what it says when it cannot start."""

import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from benchmarks.mosquitto import HOST, free_port
from orion.broker import EmbeddedBroker, EmbeddedBrokerError
from tests.brokers import Listener, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]

_PARENT = """
import sys, time
from orion.broker import EmbeddedBroker
if __name__ == "__main__":
    with EmbeddedBroker(int(sys.argv[1])) as broker:
        print(broker.process.pid, broker.url, flush=True)
        sys.stdin.read()
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_taken_port_gives_the_next() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with EmbeddedBroker(port) as broker, Listener(broker.port):
            assert broker.port > port
            assert broker.url == f"mqtt://127.0.0.1:{broker.port}"


def test_its_end_is_seen_and_stop_may_be_repeated() -> None:
    broker = EmbeddedBroker(free_port())
    broker.start()
    os.kill(broker.process.pid or 0, signal.SIGKILL)
    assert wait([broker.sentinel], 10.0)
    broker.stop()
    broker.stop()
    with pytest.raises(EmbeddedBrokerError, match="not running"):
        _ = broker.port


def test_signals_for_the_whole_group_do_not_end_it() -> None:
    with EmbeddedBroker(free_port()) as broker:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(broker.process.pid or 0, number)
        with Listener(broker.port) as listener:
            listener.publish("care/x", b"{}")
            wait_until(lambda: listener.messages, "it still works")


def test_no_free_port_is_a_clear_error() -> None:
    with socket.create_server((HOST, 65535)), pytest.raises(EmbeddedBrokerError, match="no free port from 65535"):
        EmbeddedBroker(65535).start()


def test_too_slow_a_start_is_a_clear_error() -> None:
    with pytest.raises(EmbeddedBrokerError, match="within 0 s"):
        EmbeddedBroker(free_port()).start(timeout_s=0.0)


@pytest.mark.parametrize("stopped", [False, True])
def test_it_dies_with_its_parent_and_says_nothing(stopped: bool, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    command = [sys.executable, str(script), str(free_port())]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        broker, url = parent.stdout.readline().split()
        # A client that comes, talks nonsense and goes makes the broker's library log a good deal.
        with socket.create_connection((HOST, int(url.rsplit(":", 1)[1]))) as rude:
            rude.sendall(b"\x10\xff\xff\xff\xff\xff not MQTT")
        if stopped:
            os.kill(int(broker), signal.SIGSTOP)
        parent.kill()
        wait_until(lambda: not _alive(int(broker)), "the broker is gone", 2.0)
        assert parent.stderr.read() == ""
