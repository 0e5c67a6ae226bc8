"""What the last frames of a stream suggested to look at, pure. Runs in the worker's main thread."""

from collections import deque

from orion.messages import AttentionSettings, Region
from workers.strategies import attended

MEMORY_S = 2.0
"""How long a suggestion counts; a person who was lost may still be there that long."""


class History:
    """The suggested regions of the last frames with somebody in them, with their times."""

    def __init__(self) -> None:
        self._regions: deque[tuple[float, Region]] = deque()

    @property
    def regions(self) -> tuple[Region, ...]:
        """What was suggested, oldest first."""
        return tuple(region for _, region in self._regions)

    def add(self, time_s: float, region: Region, size: int) -> None:
        """Add a suggestion; only the last `size` are kept."""
        self._regions.append((time_s, region))
        while len(self._regions) > size:
            self._regions.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self._regions.clear()

    def attended(self, time_s: float, settings: AttentionSettings) -> Region | None:
        """Return what the strategy makes of the suggestions that still count at `time_s`; None without any."""
        while self._regions and time_s - self._regions[0][0] > MEMORY_S:
            self._regions.popleft()
        return attended(self.regions, settings)
