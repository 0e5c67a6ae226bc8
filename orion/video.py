"""Video that the capture library decodes, and files of it. The only module that opens that library's captures; its
threads and timeouts are set here.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from orion.messages import Pixels
from orion.source import READ_TIMEOUT_S, Source, SourceInfo, StreamClock

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 8
"""How often a decoder is asked again after a packet that it refuses; at the end of a stream that costs microseconds."""
_WHOLE: Final = 0.9
"""Share of the pictures that a file promises with which it counts as whole: some formats only estimate them."""

# The library reads these at its first use. What an operator has set stays.
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fpsprobesize;2")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# Its lock would let each source that opens, or does not answer for seconds, hold up all others that open; the decoder
# that it comes with is built with threads, and does its own locking.
os.environ.setdefault("OPENCV_FFMPEG_IS_THREAD_SAFE", "1")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{READ_TIMEOUT_S:.0f}")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoSource(Source):
    """What the sources that the capture library reads have in common."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._capture: cv2.VideoCapture | None = None

    def _start(self, target: str, backend: int, options: Sequence[int]) -> SourceInfo | None:
        """Open `target`, a path or an address; None if the library cannot."""
        self.close()
        capture = cv2.VideoCapture(target, backend, options)
        width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if not capture.isOpened() or width <= 0 or height <= 0:
            capture.release()
            return None
        self._capture = capture
        fps = capture.get(cv2.CAP_PROP_FPS)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        return SourceInfo(width, height, fps if 0 < fps <= 1000 else None, frames if frames > 0 else None)

    @property
    def _opened(self) -> cv2.VideoCapture:
        assert self._capture is not None, f"source {self.safe_uri} is not open"
        return self._capture

    def _grab(self, timeout_s: float) -> bool:
        """Decode the next picture inside the library; False if there is none.

        One packet that cannot be decoded ends a read there though the stream goes on, so it is asked again.
        """
        deadline = time.monotonic() + timeout_s
        for _ in range(_ATTEMPTS):
            if self._opened.grab():
                return True
            if time.monotonic() >= deadline:
                break
        return False

    def _retrieve(self, dst: Pixels) -> Pixels:
        """Convert the grabbed picture, in place if its size fits."""
        try:
            found, picture = self._opened.retrieve(dst)
        except cv2.error as error:
            raise self.error(f"a picture cannot be converted ({error.err})") from None
        if not found:
            raise self.error("a picture cannot be converted")
        if picture is not dst and picture.shape == dst.shape:
            np.copyto(dst, picture)
            return dst
        return np.asarray(picture, np.uint8)

    def close(self) -> None:
        """Let go of the video. Twice is once."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class FileSource(VideoSource):
    """A video file. Ends where its pictures end, also in the middle of one."""

    kind = "file"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._clock = StreamClock(None)
        self._promised = self._passed = 0

    def open(self) -> SourceInfo:
        """Open the file. Raises SourceError if it cannot be read, is empty or is no video."""
        self._check_readable(Path(self.uri))
        info = self._start(str(Path(self.uri).absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if info is None:
            raise self.error(
                "no video that can be decoded: the file is not a video, is cut off (an MP4 that was not closed has no "
                "index), or uses an unknown codec; check it with ffprobe"
            )
        self._clock = StreamClock(info.fps)
        self._promised, self._passed = info.frames or 0, 0
        return info

    def _check_readable(self, path: Path) -> None:
        try:
            if path.is_dir():
                raise self.error("is a folder, not a video file")
            with path.open("rb") as file:
                if not file.read(1):
                    raise self.error("the file is empty")
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from error

    def read(self, dst: Pixels) -> Pixels | None:
        """Decode the next picture; None at the end."""
        return self._retrieve(dst) if self.skip() else None

    def skip(self) -> bool:
        """Pass over a picture; False at the end."""
        if not self._grab(READ_TIMEOUT_S):
            if self._passed < _WHOLE * self._promised:
                _log.warning(
                    "source %s: ended after %d of the %d pictures that it promises: it is cut off or damaged",
                    *(self.safe_uri, self._passed, self._promised),
                )
            return False
        self._passed += 1
        self._clock.advance(self._opened.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        return True

    @property
    def stream_time_s(self) -> float | None:
        """Time of the last picture by the file, or by its rate where the file does not say."""
        return self._clock.time_s
