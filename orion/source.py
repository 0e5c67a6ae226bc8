"""What every place that pictures come from has in common. A source belongs to the capture thread that opens it: none of
its methods may be called from two threads at a time, `close` included, since the library underneath crashes on that.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, Literal

from orion import uri as uris
from orion.errors import SourceError
from orion.messages import Pixels

Kind = Literal["demo", "file", "network", "device"]

OPEN_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 5.0

_USUAL_FPS: Final = 25.0
_SHORTEST_STEP_S: Final = 0.001
_LONGEST_STEP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source says of itself when it opens: pixels, pictures a second, and for files how many there are.

    `fps` and `frames` are None where nobody knows, and both are estimates in some file formats.
    """

    width: int
    height: int
    fps: float | None
    frames: int | None


class Source(ABC):
    """One place that pictures come from; may be opened again after it was closed or lost.

    `uri` is as configured; `safe_uri` is the same without secrets, for logs and errors.
    """

    kind: Kind

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.safe_uri = uris.mask(uri)

    @abstractmethod
    def open(self) -> SourceInfo:
        """Open the source. Raises SourceError that says what is wrong and what to check, in bounded time."""

    @abstractmethod
    def read(self, dst: Pixels) -> Pixels | None:
        """Decode the next picture, into `dst` if its size fits, and return where it is; None at the end.

        Returns `dst` itself, or another array when the picture's size is another. Raises SourceError when a camera is
        lost or sends nothing that can be decoded; the source must be closed and opened again then.
        """

    @abstractmethod
    def skip(self) -> bool:
        """Pass over the next picture, more cheaply than `read`; False at the end. Raises as `read` does."""

    @property
    def stream_time_s(self) -> float | None:
        """Presentation time of the last picture in seconds from the first, always growing; None for live sources."""
        return None

    @property
    def camera_time_s(self) -> float | None:
        """What a camera's own clock said of the last picture, seconds from any moment; None where it says nothing."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go of the source. Twice is once."""

    def error(self, what: str) -> SourceError:
        """Return the error that says `what` of this source."""
        return SourceError(f"source {self.safe_uri}: {what}")


class StreamClock:
    """Makes a time that always grows of the positions that a decoder reports: some files jump, repeat or know none."""

    def __init__(self, fps: float | None) -> None:
        self._period_s = 1 / (fps or _USUAL_FPS)
        self._position_s: float | None = None
        self.time_s: float | None = None
        """Seconds from the first picture; None before there was one."""

    def advance(self, position_s: float | None) -> None:
        """Take the position of the next picture, None where it has none. A step backwards, of nothing or of minutes
        counts as one period.
        """
        position_s = max(0.0, position_s or 0.0)
        if self.time_s is None or self._position_s is None:
            self.time_s = 0.0
        else:
            step_s = position_s - self._position_s
            self.time_s += step_s if _SHORTEST_STEP_S <= step_s <= _LONGEST_STEP_S else self._period_s
        self._position_s = position_s
