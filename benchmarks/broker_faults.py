"""What goes wrong with the broker, for `benchmarks.chaos`."""

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from benchmarks.mischief import Chaos, Course, Fault, let_pass
from benchmarks.mosquitto import HOST, wait_until

_OUTAGE_S = 4.0
_NOBODY = ("allow_anonymous false",)


def broker_faults() -> list[Fault]:
    """Return every fault of the broker."""
    return [
        Fault("broker killed", "real", _broker_killed),
        Fault("broker stopped (black hole)", "real", _broker_stopped),
        Fault("broker flaps", "real", _broker_flaps),
        Fault("broker refuses", "real", _broker_refuses),
        Fault("broker's port speaks HTTP", "real", _broker_is_none),
    ]


def _broker_killed(chaos: Chaos) -> Course:
    return _outage(chaos, chaos.broker.kill, chaos.broker.start)


def _broker_stopped(chaos: Chaos) -> Course:
    """Black hole: connections stand, nothing is answered. 30 s, until the instance takes it for lost."""
    stop, go_on = chaos.broker.freeze, chaos.broker.thaw
    return _outage(chaos, stop, go_on)


def _broker_flaps(chaos: Chaos) -> Course:
    def flap() -> None:
        for _ in range(4):
            chaos.broker.kill()
            let_pass(0.5)
            chaos.broker.start()
            let_pass(0.5)
        chaos.broker.kill()

    return _outage(chaos, flap, chaos.broker.start)


def _broker_refuses(chaos: Chaos) -> Course:
    """Start it anew so that it lets nobody in, as after a change of passwords."""

    def begin() -> None:
        chaos.broker.kill()
        chaos.broker.start(_NOBODY)

    def end() -> None:
        chaos.broker.kill()
        chaos.broker.start()

    return _outage(chaos, begin, end, "refused: ")


def _broker_is_none(chaos: Chaos) -> Course:
    """Let something else answer at its port."""
    with ExitStack() as stack:

        def begin() -> None:
            chaos.broker.kill()
            stack.enter_context(_web_server(chaos.broker.port))

        def end() -> None:
            stack.close()
            chaos.broker.start()

        return _outage(chaos, begin, end)


@contextmanager
def _web_server(port: int) -> Iterator[None]:
    """Answer everybody as a web server answers what it does not understand."""
    server = socketserver.ThreadingTCPServer((HOST, port), _BadRequest, bind_and_activate=False)
    server.allow_reuse_address = True
    server.server_bind()
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="web-server")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _BadRequest(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Answer one connection."""
        with suppress(OSError):
            self.request.recv(1024)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def _outage(chaos: Chaos, begin: Callable[[], None], end: Callable[[], None], told: str = "connected: ") -> Course:
    length, moment_s = chaos.log_length(), time.monotonic()
    begin()
    detected_s = chaos.log_since(length, told, moment_s)
    let_pass(_OUTAGE_S)
    written = len(chaos.instance.written())
    wait_until(lambda: len(chaos.instance.written()) > written, "frames go on without the broker")
    end()
    return Course(detected_s, chaos.all_arrived_since(time.monotonic()))
