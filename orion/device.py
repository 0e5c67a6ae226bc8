"""Cameras of this machine, through Video4Linux as OpenCV reads it. Used by the capture threads, like every source."""

import os
from pathlib import Path

import cv2
import numpy as np

from orion.messages import Pixels
from orion.source import READ_TIMEOUT_S, Source, SourceInfo

# The library reads this at its first use; its own limit is ten seconds. What an operator has set stays.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{READ_TIMEOUT_S:.0f}")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class DeviceSource(Source):
    """A camera of this machine, through Video4Linux, named by its index."""

    kind = "device"

    def __init__(self, uri: str, devices: Path = Path("/dev")) -> None:
        super().__init__(uri)
        self._path = devices / f"video{int(uri)}"
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> SourceInfo:
        """Open the camera. Raises SourceError if it is absent, busy or no camera."""
        self.close()
        self._check_device()
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_V4L2)
        width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if not capture.isOpened() or width <= 0 or height <= 0:
            capture.release()
            raise self.error(f"{self._path} is busy or no camera: check with v4l2-ctl --all, and who has it with fuser")
        self._capture = capture
        fps = capture.get(cv2.CAP_PROP_FPS)
        return SourceInfo(width, height, fps if 0 < fps <= 1000 else None, None)

    def _check_device(self) -> None:
        advice = {
            FileNotFoundError: "no such camera: is it plugged in, and given to the container with --device?",
            PermissionError: "not allowed: add the user to the group video",
        }
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            what = advice.get(type(error), f"{error.strerror}: does another program use it?")
            raise self.error(f"{self._path}: {what}") from error

    @property
    def _opened(self) -> cv2.VideoCapture:
        assert self._capture is not None, f"source {self.safe_uri} is not open"
        return self._capture

    def read(self, dst: Pixels) -> Pixels | None:
        """Decode the next picture. Raises SourceError when the camera is gone or silent for 5 s."""
        self.skip()
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

    def skip(self) -> bool:
        """Pass over a picture. Raises as `read` does."""
        if not self._opened.grab():
            raise self.error(f"{self._path} sends nothing: was it unplugged?")
        return True

    def close(self) -> None:
        """Let go of the camera. Twice is once."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
