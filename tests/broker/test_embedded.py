"""The embedded broker as a process: its port, its end, and what it says when it cannot start."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from benchmarks.mosquitto import HOST, free_port
from orion.broker import EmbeddedBroker, EmbeddedBrokerError
from orion.keeper import BrokerKeeper
from orion.posts import BusEvent, Post
from tests.brokers import RESULTS, STATUS, Embedded, Listener, wait_until

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


@pytest.mark.parametrize("topic", ["foo/bar", RESULTS])
def test_retained_messages_go_only_to_who_subscribes_to_them(topic: str) -> None:
    with Embedded() as broker, Listener(broker.port, STATUS) as owner:
        owner.publish(STATUS, b'{"status": "online"}', retain=True)
        wait_until(lambda: owner.messages, "the status is out")
        with Listener(broker.port, STATUS) as reader, Listener(broker.port, topic) as stranger:
            wait_until(lambda: reader.messages, "who subscribes to the status gets it")
            owner.publish(topic, b'{"number": 1}')
            wait_until(lambda: stranger.payloads(topic), "what was published after the subscription")
        assert [(message.topic, message.retain) for message in reader.messages] == [(STATUS, True)]
        assert [(message.topic, message.retain) for message in stranger.messages] == [(topic, False)]


def test_no_free_port_is_a_clear_error() -> None:
    with socket.create_server((HOST, 65535)), pytest.raises(EmbeddedBrokerError, match="port 65535 is taken"):
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


class Loop:
    """Stands for the supervisor's loop: knows what is watched, and calls the keeper's turn again and again."""

    def __init__(self, keeper: BrokerKeeper) -> None:
        self.watched: set[int] = set()
        self._keeper = keeper
        keeper.attach(self)

    def watch(self, descriptor: int) -> None:
        assert descriptor not in self.watched
        self.watched.add(descriptor)

    def unwatch(self, descriptor: int) -> None:
        os.fstat(descriptor)
        self.watched.remove(descriptor)

    def run_until(self, condition: Callable[[], object], what: str) -> None:
        def turned() -> object:
            wait(list(self.watched), max(0.0, min(0.1, self._keeper.next_deadline_s() - time.monotonic())))
            self._keeper.turn()
            return condition()

        wait_until(turned, what)


def test_a_broker_that_dies_is_started_again_on_its_port(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    posts: list[Post] = []
    with BrokerKeeper(posts.append, EmbeddedBroker(free_port())) as keeper:
        loop, port, first = Loop(keeper), keeper.port, keeper.pid
        os.kill(first or 0, signal.SIGKILL)
        loop.run_until(lambda: posts, "it is back")
        assert keeper.port == port
        assert keeper.pid not in {first, None}
        with Listener(port) as listener:
            listener.publish("care/x", b"{}")
            wait_until(lambda: listener.messages, "it works")
        match posts:
            case [BusEvent("broker_restarted", {"reason": reason, "recovery_ms": recovery_ms})]:
                assert reason == "the embedded broker ended with code -9"
                assert recovery_ms > 300
            case _:
                pytest.fail(f"{posts}")
        os.kill(keeper.pid or 0, signal.SIGKILL)
        loop.run_until(lambda: keeper.pid is None, "its second end")
        assert loop.watched == set()
        with socket.create_server((HOST, port)):
            loop.run_until(lambda: "is taken" in caplog.text, "the next one finds no place")
        loop.run_until(lambda: len(posts) == 2, "it is back once there is")
        with Listener(port):
            pass
    delays = [float(found) for found in re.findall(rf"starting it again on port {port} in ([0-9.]+) s", caplog.text)]
    assert len(delays) == 3
    assert delays[0] < delays[1] < delays[2]


def test_a_broker_that_does_not_come_up_is_killed_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    with BrokerKeeper(lambda _: None, EmbeddedBroker(free_port()), clock=lambda: now_s) as keeper:
        loop = Loop(keeper)
        os.kill(keeper.pid or 0, signal.SIGKILL)
        loop.run_until(lambda: keeper.pid is None, "its end")
        now_s = keeper.next_deadline_s()
        keeper.turn()
        hung = keeper.pid or 0
        os.kill(hung, signal.SIGSTOP)
        now_s = keeper.next_deadline_s()
        loop.run_until(lambda: keeper.pid is None, "the end of one that hangs")
        assert "the embedded broker's process ended while starting, exit code -9" in caplog.text
        now_s = keeper.next_deadline_s()
        loop.run_until(lambda: keeper.next_deadline_s() == float("inf"), "the next one")
        with Listener(keeper.port):
            pass
