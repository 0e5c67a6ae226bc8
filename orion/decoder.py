"""FFmpeg's decoders, through PyAV: the only module that imports it. A decoder belongs to the capture thread of its
source, and decodes in that thread alone, since the cores are the workers'.
"""

import errno
import time
from collections import deque
from collections.abc import Generator
from fractions import Fraction
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.filter import Graph

from orion.messages import Pixels
from orion.source import SourceInfo

_ATTEMPTS: Final = 8
"""How often a file is asked again after a place where no packet can be found."""
_PATIENCE_S: Final = 10.0
"""How long a first picture is looked for among what has arrived."""
_FASTEST_HZ: Final = 1000
"""A higher rate is the clock of the format, not that of the pictures."""
_OPTIONS: Final = {"rtsp_transport": "tcp", "allowed_media_types": "video", "fpsprobesize": "2"}
"""Of a camera's streams only the video is asked for, and its rate is not waited for."""
_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (av.HTTPUnauthorizedError, "the server answers 401: user or password is missing or wrong"),
    (av.HTTPForbiddenError, "the server answers 403: it refuses this user or this address"),
    (av.HTTPNotFoundError, "the server answers 404: it has no such path"),
    (av.HTTPClientError, "the server refuses the request: check the path, and whether it speaks RTSP over TCP"),
    (av.HTTPServerError, "the server answers that it is not ready, or serves too many"),
    (InvalidDataError, "what answers there sends no video that can be decoded: check the port and the path"),
    (EOFError, "the server hangs up: check the port and the path"),
)
_NO_ANSWER: Final = "no answer in time: check the address, the network and whether the camera is on"
_NO_PICTURE: Final = "no picture that can be decoded came in time"


class DecoderError(Exception):
    """A video cannot be opened; the text says why in one clause, and holds no address and no secret."""


class Decoder:
    """The pictures of one file or network stream, from the first one that is whole.

    Garbage decodes to a picture now and then, of any size. So one with errors in it counts only among others of its
    size, and one of another size only when a second follows, or nothing. `timeouts_s` are the seconds for opening and
    for each packet after that; a file needs none. Raises DecoderError.
    """

    def __init__(self, target: str, timeouts_s: tuple[float, float] | None = None) -> None:
        begin_s = time.monotonic()
        try:
            # What is written into a file besides pictures may be in any encoding.
            self._container = av.open(
                target, options=_OPTIONS if timeouts_s else {}, timeout=timeouts_s, metadata_errors="replace"
            )
        except FFmpegError as error:
            late = timeouts_s is not None and time.monotonic() >= begin_s + timeouts_s[0]
            raise DecoderError(_NO_ANSWER if late else _in_words(error)) from error
        self._decoded: deque[av.VideoFrame] = deque()
        self._frame: av.VideoFrame | None = None
        self._other: av.VideoFrame | None = None
        """The first picture of another size."""
        self._converter: _Converter | None = None
        try:
            self._begin(timeouts_s)
        except BaseException:
            self._container.close()
            raise

    def _begin(self, timeouts_s: tuple[float, float] | None) -> None:
        stream = self._container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise DecoderError("there is no video in it")
        stream.codec_context.thread_count = 1
        self._stream = stream
        self._size = stream.codec_context.width, stream.codec_context.height
        self._packets = _decode(self._container, stream)
        if not self.advance(timeouts_s[1] if timeouts_s else _PATIENCE_S):
            raise DecoderError(_NO_PICTURE)
        # The first picture is given by the first `advance` of whoever reads.
        self._decoded.appendleft(self._present)

    @property
    def _present(self) -> av.VideoFrame:
        assert self._frame is not None
        return self._frame

    @property
    def info(self) -> SourceInfo:
        """What the video says of itself. The size is that of the present picture, the rest may be estimated."""
        turned = self._present.rotation % 180 != 0
        width, height = self._present.width, self._present.height
        rate = self._stream.guessed_rate
        fps = float(rate) if rate is not None and 0 < rate <= _FASTEST_HZ else None
        frames = self._stream.frames
        if not frames and fps is not None and self._container.duration is not None:
            frames = round(self._container.duration / av.time_base * fps)
        return SourceInfo(*((height, width) if turned else (width, height)), fps, frames if frames > 0 else None)

    @property
    def position_s(self) -> float | None:
        """Presentation time of the present picture in seconds, from any moment; None where the stream has none."""
        return self._present.time

    def advance(self, timeout_s: float) -> bool:
        """Decode the next picture; False at the end, and if none can be made in this time of the packets that come."""
        deadline_s = time.monotonic() + timeout_s
        while not self._decoded:
            if time.monotonic() >= deadline_s:
                return False
            try:
                frames = next(self._packets, None)
            except FFmpegError:
                return False
            if frames is None:
                return self._end()
            for frame in frames:
                self._take(frame)
        self._frame = self._decoded.popleft()
        return True

    def _take(self, frame: av.VideoFrame) -> None:
        """Keep a picture if it is one of the stream."""
        size = frame.width, frame.height
        if frame.is_corrupt and (size != self._size or self._frame is None):
            return
        if size == self._size:
            self._decoded.append(frame)
        elif self._other is not None and size == (self._other.width, self._other.height):
            self._size = size
            self._decoded.extend((self._other, frame))
        else:
            self._other = frame
            return
        self._other = None

    def _end(self) -> bool:
        """Go to what was held back, if anything was."""
        if self._other is None:
            return False
        self._frame, self._other = self._other, None
        return True

    def picture(self, dst: Pixels) -> Pixels:
        """Return the present picture, upright, (H, W, 3) uint8 BGR: in `dst` if it has that size, else elsewhere.

        Raises DecoderError when it is in a format that cannot be converted.
        """
        frame = self._present
        try:
            if self._converter is None or not self._converter.takes(frame):
                self._converter = _Converter(frame)
            picture = self._converter.convert(frame)
        except FFmpegError as error:
            raise DecoderError(f"a picture cannot be converted ({error.strerror})") from error
        picture = np.rot90(picture, round(frame.rotation / 90))
        if picture.shape != dst.shape:
            return picture
        np.copyto(dst, picture)
        return dst

    def close(self) -> None:
        """Let go of the video. Twice is once."""
        self._packets.close()
        self._container.close()


def _decode(container: InputContainer, stream: av.VideoStream) -> Generator[list[av.VideoFrame]]:
    """Yield what each packet gives. Of what is broken nothing comes, and the stream goes on."""
    for _ in range(_ATTEMPTS):
        try:
            for packet in container.demux(stream):
                try:
                    yield list(packet.decode())
                except InvalidDataError:
                    yield []
        except InvalidDataError:
            continue
        return


class _Converter:
    """Makes BGR24 of pictures of one size and format, in memory that FFmpeg keeps for the next one."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._takes = _form(frame)
        self._graph = Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
        )
        self._graph.link_nodes(source, self._graph.add("format", "bgr24"), self._graph.add("buffersink"))
        self._graph.configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        """Return whether a picture is of the size and format that this converts."""
        return _form(frame) == self._takes

    def convert(self, frame: av.VideoFrame) -> Pixels:
        """Return (H, W, 3) uint8 BGR, a view; its memory is used again once nobody looks at it."""
        self._graph.vpush(frame)
        made = self._graph.vpull()
        plane = made.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(made.height, plane.line_size)
        picture: Pixels = rows[:, : made.width * 3].reshape(made.height, made.width, 3)
        return picture


def _form(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _in_words(error: FFmpegError) -> str:
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if error.errno == errno.EIO:
        return "the host's name is unknown, or the server breaks the connection off"
    return f"{error.strerror}: check the address, the network and whether the camera is on"
