"""FFmpeg's decoders, through PyAV: the only module that imports it. A decoder belongs to the capture thread of its
source, and decodes in that thread alone, since the cores are the workers'.
"""

import errno
import math
import time
from collections import deque
from collections.abc import Generator, Sequence
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.filter import Graph

from orion.messages import Pixels
from orion.source import SourceInfo

_ATTEMPTS: Final = 8
"""How often it is looked further where no packet can be found."""
_FASTEST_HZ: Final = 1000
"""A higher rate is the clock of the format, not that of the pictures."""
_MAX_PIXELS: Final = 2**26
"""Twice those of 8K: what garbage says may be more than the machine has memory for."""
_OPTIONS: Final = {"merge_pmt_versions": "1"}
"""A transport stream may go on under other numbers; it is the same video."""
_NETWORK_OPTIONS: Final = {"rtsp_transport": "tcp", "allowed_media_types": "video", "fpsprobesize": "2"}
"""Of a camera's streams only the video is asked for, and its rate is not waited for."""
_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (av.HTTPUnauthorizedError, "the server answers 401: user or password is missing or wrong"),
    (av.HTTPForbiddenError, "the server answers 403: it refuses this user or this address"),
    (av.HTTPNotFoundError, "the server answers 404: it has no such path"),
    (
        av.HTTPClientError,
        "the server refuses the request: check the path, whether it speaks RTSP over TCP, and how many it may serve",
    ),
    (av.HTTPServerError, "the server answers that it is not ready, or serves too many"),
    (InvalidDataError, "what answers there sends no video that can be decoded: check the port and the path"),
    (EOFError, "the server hangs up: check the port and the path"),
)
_CHECK: Final = "check the address, the network and whether the camera is on"


class DecoderError(Exception):
    """A video cannot be opened; the text says why in one clause, and holds no address and no secret."""


class Decoder:
    """The pictures of one file or network stream.

    Garbage decodes to a picture now and then, of any size. So one that is unlike those before, of another size or with
    errors before there was one without, counts only if the next picture is of its size: then both do.

    `timeouts_s` are the seconds for opening and for each picture after that; a file needs none. Raises DecoderError.
    """

    def __init__(self, target: str, timeouts_s: tuple[float, float] | None = None) -> None:
        begin_s = time.monotonic()
        options = _OPTIONS | (_NETWORK_OPTIONS if timeouts_s else {})
        try:
            # What is written into a file besides pictures may be in any encoding.
            self._container = av.open(target, options=options, timeout=timeouts_s, metadata_errors="replace")
        except FFmpegError as error:
            late = timeouts_s is not None and time.monotonic() >= begin_s + timeouts_s[0]
            raise DecoderError(f"no answer in time: {_CHECK}" if late else _in_words(error)) from error
        self._decoded: deque[av.VideoFrame] = deque()
        self._frame: av.VideoFrame | None = None
        self._unlike: av.VideoFrame | None = None
        """The last picture, if it was unlike those before."""
        self._converter: _Converter | None = None
        try:
            self._begin(None if timeouts_s is None else timeouts_s[1])
        except BaseException:
            self._container.close()
            raise

    def _begin(self, timeout_s: float | None) -> None:
        stream = self._container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
            raise DecoderError("there is no video in it that can be decoded")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
        self._stream = stream
        self._size = stream.codec_context.width, stream.codec_context.height
        self._packets = _decode(self._container, stream)
        if not self.advance(timeout_s):
            raise DecoderError("there is no picture in it that can be decoded")
        # The first picture is given by the first `advance` of whoever reads.
        self._decoded.appendleft(self._present)

    @property
    def _present(self) -> av.VideoFrame:
        assert self._frame is not None
        return self._frame

    @property
    def info(self) -> SourceInfo:
        """What the video says of itself. The size is that of the present picture, the rest may be estimated."""
        width, height = self._present.width, self._present.height
        if _quarters(self._present) % 2:
            width, height = height, width
        return SourceInfo(width, height, self._fps, self._stream.frames or self._lasting)

    @property
    def promised(self) -> int | None:
        """How many pictures the video has by its own word, not by the length of a file whose sound may last longer."""
        alone = len(self._container.streams) == 1
        return self._stream.frames or (self._lasting if alone else None)

    @property
    def _fps(self) -> float | None:
        rate = self._stream.guessed_rate
        return float(rate) if rate is not None and 0 < rate <= _FASTEST_HZ else None

    @property
    def _lasting(self) -> int | None:
        """How many pictures fit into the length of the file."""
        if self._container.duration is None or self._fps is None:
            return None
        return max(0, round(self._container.duration / av.time_base * self._fps)) or None

    @property
    def position_s(self) -> float | None:
        """Presentation time of the present picture in seconds, from any moment; None where the stream has none."""
        return self._present.time

    def advance(self, timeout_s: float | None) -> bool:
        """Go to the next picture; False at the end, and if none could be made in this time of the packets that came."""
        deadline_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        try:
            while not self._decoded:
                if time.monotonic() >= deadline_s:
                    return False
                self._take(next(self._packets))
        except (StopIteration, FFmpegError):
            return self._end()
        self._frame = self._decoded.popleft()
        return True

    def _take(self, frames: Sequence[av.VideoFrame] | None) -> None:
        """Keep of what a packet gave, None if it was broken, the pictures that count."""
        if frames is None:
            self._unlike = None
            return
        for frame in frames:
            before, self._unlike = self._unlike, None
            size = frame.width, frame.height
            usual = size == self._size and not (frame.is_corrupt and self._frame is None)
            if before is not None and size == (before.width, before.height):
                self._decoded.append(before)
            elif not usual:
                self._unlike = frame
                continue
            self._decoded.append(frame)
            self._size = size

    def _end(self) -> bool:
        """Go to a last picture that is unlike the others, if it is without errors."""
        last, self._unlike = self._unlike, None
        if last is None or last.is_corrupt:
            return False
        self._frame = last
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
        picture = np.rot90(picture, _quarters(frame))
        if picture.shape != dst.shape:
            return picture
        np.copyto(dst, picture)
        return dst

    def close(self) -> None:
        """Let go of the video. Twice is once."""
        self._packets.close()
        self._container.close()


def _decode(container: InputContainer, stream: av.VideoStream) -> Generator[Sequence[av.VideoFrame] | None]:
    """Yield what each packet gives, None if it is broken: the stream goes on. Packets of other streams give nothing,
    but let who waits look at the clock.
    """
    attempts = _ATTEMPTS
    while attempts:
        try:
            for packet in container.demux():
                attempts = _ATTEMPTS
                yield _pictures(packet) if packet.stream_index == stream.index else ()
        except InvalidDataError:
            attempts -= 1
        else:
            return


def _pictures(packet: "av.Packet[Any]") -> Sequence[av.VideoFrame] | None:
    try:
        return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    except FFmpegError:
        return None


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


def _quarters(frame: av.VideoFrame) -> int:
    """Return by how many quarters of a circle, to the left, a picture must be turned to be upright."""
    # A matrix that turns nothing gives an angle that is none.
    return round(frame.rotation / 90) if abs(frame.rotation) <= 180 else 0


def _form(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _in_words(error: FFmpegError) -> str:
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if error.errno == errno.EIO:
        return "the host's name is unknown, or the server breaks the connection off"
    return f"{error.strerror}: {_CHECK}"
