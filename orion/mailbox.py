"""How other threads and signal handlers reach the supervisor's thread: they post, it wakes up and takes. Any thread may
post; one thread takes and waits on the descriptor.
"""

import os
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Mailbox(Generic[_T]):
    """An unbounded queue with a descriptor that becomes readable when something was posted or `wake` was called.

    Posting takes no lock that a taker could hold, so that it is safe in a signal handler.
    """

    def __init__(self) -> None:
        self._items: deque[_T] = deque()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._descriptor

    def post(self, item: _T) -> None:
        """Leave an item and wake the taker."""
        self._items.append(item)
        self.wake()

    def wake(self) -> None:
        """Wake the taker without an item. A closed mailbox is silent: late threads may still knock."""
        with suppress(OSError):
            os.eventfd_write(self._descriptor, 1)

    def take(self) -> list[_T]:
        """Return what was posted since the last call, oldest first."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        taken = []
        while self._items:
            taken.append(self._items.popleft())
        return taken

    def close(self) -> None:
        """Give the descriptor back."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
