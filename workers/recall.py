"""How many of the people that a rescan finds attention would have found: pure. Runs in the worker's main thread, on
the stream's clock.
"""

from collections import deque

_BUCKET_S = 60.0
_HOUR_S = 3600.0
_CLOSEST = 8


class Recall:
    """Counts hits among people, since the start and over the last hour in steps of a minute.

    `closeness` is how many times closer rescans come than is set: doubled by each count that leaves the last hour under
    the floor, halved by each that does not.
    """

    def __init__(self) -> None:
        self.hits = 0
        self.total = 0
        self.closeness = 1
        self._minutes: deque[tuple[int, int, int]] = deque()

    def count(self, time_s: float, hits: int, total: int, floor: float) -> None:
        """Add a rescan at `time_s` that found `total` people, `hits` of whom attention would have found."""
        self.hits += hits
        self.total += total
        minute = int(time_s // _BUCKET_S)
        if self._minutes and self._minutes[-1][0] > minute:
            self._minutes.clear()
        if self._minutes and self._minutes[-1][0] == minute:
            _, hits_before, total_before = self._minutes.pop()
            hits, total = hits + hits_before, total + total_before
        self._minutes.append((minute, hits, total))
        total = sum(of for _, _, of in self._minutes)
        # One miss among few people proves nothing.
        under = self.last_hour(time_s) * total + 1 < floor * total
        self.closeness = min(_CLOSEST, self.closeness * 2) if under else max(1, self.closeness // 2)

    def last_hour(self, time_s: float) -> float:
        """Return hits over people in the hour before `time_s`; 1 when there were none."""
        oldest = (time_s - _HOUR_S) // _BUCKET_S
        while self._minutes and self._minutes[0][0] < oldest:
            self._minutes.popleft()
        total = sum(of for _, _, of in self._minutes)
        return sum(hits for _, hits, _ in self._minutes) / total if total else 1.0
