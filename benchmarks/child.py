"""A process of a benchmark's own at the other end of a pipe, that answers what it is asked. `Child` belongs to the
thread that measures; `asked` is what the process loops over.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

_LIMIT_S = 120.0
"""For anything that the process owes; far beyond what is measured."""


class Child:
    """A process that runs `work(end, *arguments)`, where `end` is its end of the pipe."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *arguments), name=work.__name__.strip("_"))
        self._process.start()
        theirs.close()

    def tell(self, message: Any) -> None:
        """Send a message, and do not wait."""
        self._end.send(message)

    def answer(self) -> Any:
        """Return what the process sends next. Raises RuntimeError when it sends nothing for long."""
        if not self._end.poll(_LIMIT_S):
            raise RuntimeError(f"{self._process.name} does not answer")
        return self._end.recv()

    def close(self) -> None:
        """End the process by the end of its input."""
        self._end.close()
        self._process.join(_LIMIT_S)
        self._process.close()


def asked(end: Connection) -> Iterator[Any]:
    """Yield each message until the end of input."""
    while True:
        try:
            message = end.recv()
        except EOFError:
            return
        yield message
