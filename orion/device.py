"""Cameras of this machine, through Video4Linux. Used by the capture threads, like every source."""

import os
from pathlib import Path

import cv2

from orion.messages import Pixels
from orion.source import SourceInfo
from orion.video import VideoSource


class DeviceSource(VideoSource):
    """A camera of this machine, through Video4Linux, named by its index."""

    kind = "device"

    def __init__(self, uri: str, devices: Path = Path("/dev")) -> None:
        super().__init__(uri)
        self._path = devices / f"video{int(uri)}"

    def open(self) -> SourceInfo:
        """Open the camera. Raises SourceError if it is absent, busy or no camera."""
        self.close()
        self._check_device()
        info = self._start(str(self._path), cv2.CAP_V4L2, [])
        if info is None:
            raise self.error(f"{self._path} is busy or no camera: check with v4l2-ctl --all, and who has it with fuser")
        return SourceInfo(info.width, info.height, info.fps, None)

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

    def read(self, dst: Pixels) -> Pixels | None:
        """Decode the next picture. Raises SourceError when the camera is gone or silent for 5 s."""
        self.skip()
        return self._retrieve(dst)

    def skip(self) -> bool:
        """Pass over a picture. Raises as `read` does."""
        if not self._grab(0.0):
            raise self.error(f"{self._path} sends nothing: was it unplugged?")
        return True
