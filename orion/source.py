"""Where pictures come from: files, cameras over the network, cameras of this machine, and the demo scene, behind one
interface. The only module that knows the capture library. A source belongs to the capture thread that opens it: none of
its methods may be called from two threads at a time, `close` included, since the library underneath crashes on that.
"""

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np

from orion import rtsp
from orion import uri as uris
from orion.errors import ConfigError, Problem, SourceError
from orion.messages import Pixels
from orion.mjpeg import MjpegStream
from orion.scene import DemoScene

Kind = Literal["demo", "file", "network", "device"]

OPEN_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 5.0

_SOURCES: Final = "a source is demo, demo:WIDTHxHEIGHT@FPS, a video file, rtsp://, http(s):// or a device index"

_ATTEMPTS: Final = 8
"""How often a decoder is asked again after a packet that it refuses; at the end of a stream that costs microseconds."""
_EXPLAIN_TIMEOUT_S: Final = 1.0
_USUAL_FPS: Final = 25.0
_SHORTEST_STEP_S: Final = 0.001
_LONGEST_STEP_S: Final = 10.0

# The library reads these at its first use. What an operator has set stays.
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fpsprobesize;2")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{READ_TIMEOUT_S:.0f}")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


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

    def advance(self, position_s: float) -> None:
        """Take the position of the next picture. A step backwards, of nothing or of minutes counts as one period."""
        position_s = max(0.0, position_s)
        if self.time_s is None or self._position_s is None:
            self.time_s = 0.0
        else:
            step_s = position_s - self._position_s
            self.time_s += step_s if _SHORTEST_STEP_S <= step_s <= _LONGEST_STEP_S else self._period_s
        self._position_s = position_s


class _CaptureSource(Source):
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
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class FileSource(_CaptureSource):
    """A video file. Ends where its pictures end, also in the middle of one."""

    kind = "file"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._clock = StreamClock(None)

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
            return False
        self._clock.advance(self._opened.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        return True

    @property
    def stream_time_s(self) -> float | None:
        """Time of the last picture by the file, or by its rate where the file does not say."""
        return self._clock.time_s


class NetworkSource(_CaptureSource):
    """A stream over the network that the capture library reads: RTSP over TCP, and what HTTP carries beside MJPEG.

    The library scales a picture whose size changes inside a stream to the first size; a camera that starts a new
    stream for it, as most do, is lost and opened again with the new size.
    """

    kind = "network"

    def __init__(
        self, uri: str, open_timeout_s: float = OPEN_TIMEOUT_S, read_timeout_s: float = READ_TIMEOUT_S
    ) -> None:
        super().__init__(uri)
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s

    def open(self) -> SourceInfo:
        """Connect. Raises SourceError, with the server's own reason, within `open_timeout_s` and two seconds."""
        options = (
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(self._open_timeout_s * 1000)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(self._read_timeout_s * 1000)),
            *(cv2.CAP_PROP_N_THREADS, 1),
        )
        info = self._start(self.uri, cv2.CAP_FFMPEG, options)
        if info is None:
            raise self.error(self._explain())
        return SourceInfo(info.width, info.height, info.fps, None)

    def _explain(self) -> str:
        if self.uri.startswith("rtsp"):
            return rtsp.explain(self.uri, min(_EXPLAIN_TIMEOUT_S, self._open_timeout_s))
        return "no video that can be decoded"

    def read(self, dst: Pixels) -> Pixels | None:
        """Decode the next picture. Raises SourceError when the stream ends or is silent for `read_timeout_s`."""
        self.skip()
        return self._retrieve(dst)

    def skip(self) -> bool:
        """Pass over a picture. Raises as `read` does."""
        deadline = time.monotonic() + self._read_timeout_s
        found = self._grab(self._read_timeout_s)
        # After a silence the decoder still gives up what it held back: a picture from before, not of now.
        if time.monotonic() >= deadline:
            raise self.error(f"sent nothing for {self._read_timeout_s:g} s")
        if not found:
            raise self.error("ended the stream")
        return True


class HttpSource(Source):
    """A stream over HTTP: MJPEG read by `orion.mjpeg`, anything else by the capture library."""

    kind = "network"

    def __init__(
        self, uri: str, open_timeout_s: float = OPEN_TIMEOUT_S, read_timeout_s: float = READ_TIMEOUT_S
    ) -> None:
        super().__init__(uri)
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._stream: MjpegStream | None = None
        self._other: NetworkSource | None = None
        self._first: Pixels | None = None

    def open(self) -> SourceInfo:
        """Connect and wait for the first picture. Raises SourceError if there is none."""
        self.close()
        try:
            stream = MjpegStream(self.uri, min(self._open_timeout_s, self._read_timeout_s))
        except SourceError as error:
            raise self.error(str(error)) from error
        if not stream.multipart:
            stream.close()
            return self._open_other(stream.content_type)
        self._stream = stream
        self._first = self._decode_next()
        height, width = self._first.shape[:2]
        return SourceInfo(width, height, None, None)

    def _open_other(self, content_type: str) -> SourceInfo:
        other = NetworkSource(self.uri, self._open_timeout_s, self._read_timeout_s)
        try:
            info = other.open()
        except SourceError:
            raise self.error(f"no video that can be decoded: the server sends {content_type}") from None
        self._other = other
        return info

    def read(self, dst: Pixels) -> Pixels | None:
        """Decode the next picture. Raises SourceError when the stream ends or brings none for `read_timeout_s`."""
        if self._other is not None:
            return self._other.read(dst)
        picture, self._first = self._first, None
        if picture is None:
            picture = self._decode_next()
        if picture.shape != dst.shape:
            return picture
        np.copyto(dst, picture)
        return dst

    def skip(self) -> bool:
        """Pass over a picture. Raises as `read` does, but for pictures that cannot be decoded."""
        if self._other is not None:
            return self._other.skip()
        if self._first is None:
            self._part()
        self._first = None
        return True

    def _decode_next(self) -> Pixels:
        """Return the next picture that can be decoded, as a new array. A broken one is passed over."""
        deadline = time.monotonic() + self._read_timeout_s
        while time.monotonic() < deadline:
            part = self._part()
            picture = cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR) if part else None
            if picture is not None:
                return np.asarray(picture, np.uint8)
        raise self.error(f"sent no picture that can be decoded for {self._read_timeout_s:g} s")

    def _part(self) -> bytes:
        assert self._stream is not None, f"source {self.safe_uri} is not open"
        try:
            return self._stream.read()
        except SourceError as error:
            raise self.error(str(error)) from error

    def close(self) -> None:
        """Close the connection. Twice is once."""
        for opened in (self._stream, self._other):
            if opened is not None:
                opened.close()
        self._stream = self._other = self._first = None


class DeviceSource(_CaptureSource):
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


class DemoSource(Source):
    """The built-in scene. Never ends; whoever reads it sets the pace."""

    kind = "demo"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._scene = DemoScene.parse(uri)
        self._index = 0

    def open(self) -> SourceInfo:
        """Begin the scene, from its first picture."""
        self._index = 0
        return SourceInfo(self._scene.width, self._scene.height, self._scene.fps, None)

    def read(self, dst: Pixels) -> Pixels | None:
        """Render the next picture."""
        fits = dst.shape == (self._scene.height, self._scene.width, 3)
        out = dst if fits else np.empty((self._scene.height, self._scene.width, 3), np.uint8)
        self._scene.render(self._index, out)
        self._index += 1
        return out

    def skip(self) -> bool:
        """Leave a picture out; its time passes all the same."""
        self._index += 1
        return True

    @property
    def stream_time_s(self) -> float | None:
        """Time of the last picture in the scene."""
        return (self._index - 1) / self._scene.fps if self._index else None

    def close(self) -> None:
        """Do nothing: the scene holds nothing."""


def make_source(uri: str, open_timeout_s: float = OPEN_TIMEOUT_S, read_timeout_s: float = READ_TIMEOUT_S) -> Source:
    """Return the source that `uri` names, not opened yet; the timeouts are those of network sources.

    `uri` is `demo`, `demo:WIDTHxHEIGHT@FPS`, a device index, an address with rtsp, rtsps, http or https, or the path of
    a video file. Raises ConfigError for what can be seen without opening it, a file that does not exist included.
    """
    scheme, separator, _ = uri.partition("://")
    if separator:
        return _network_source(uri, scheme.lower(), open_timeout_s, read_timeout_s)
    if uri == "demo" or uri.startswith("demo:"):
        return _demo_source(uri)
    if re.fullmatch(r"\d{1,3}", uri, re.ASCII):
        return DeviceSource(uri)
    if not uri or "\0" in uri or not Path(uri).exists():
        raise _wrong(uri, f"no such file; {_SOURCES}")
    return FileSource(uri)


def _network_source(uri: str, scheme: str, open_timeout_s: float, read_timeout_s: float) -> Source:
    kinds: dict[str, type[NetworkSource | HttpSource]] = {
        "rtsp": NetworkSource,
        "rtsps": NetworkSource,
        "http": HttpSource,
        "https": HttpSource,
    }
    if scheme not in kinds:
        raise _wrong(uri, f"unknown scheme {scheme}://; known are {', '.join(f'{known}://' for known in kinds)}")
    try:
        uris.split(uri)
    except ValueError as error:
        raise _wrong(uri, str(error)) from None
    return kinds[scheme](scheme + uri[len(scheme) :], open_timeout_s, read_timeout_s)


def _demo_source(uri: str) -> Source:
    try:
        return DemoSource(uri)
    except ValueError as error:
        raise _wrong(uri, str(error)) from None


def _wrong(uri: str, what: str) -> ConfigError:
    return ConfigError(Problem("", f"source {uris.mask(uri)!r}: {what}"))
