"""Cameras over the network: RTSP by FFmpeg, MJPEG over HTTP by `orion.mjpeg`. Every wait has a limit of
ours. Used by the capture threads, like every source.
"""

import time

import cv2
import numpy as np

from orion.decoder import Decoder, DecoderError
from orion.errors import SourceError
from orion.messages import Pixels
from orion.mjpeg import MjpegStream
from orion.source import OPEN_TIMEOUT_S, READ_TIMEOUT_S, Source, SourceInfo
from orion.video import VideoSource


class NetworkSource(VideoSource):
    """A stream over the network that FFmpeg reads: RTSP over TCP, and what HTTP carries beside MJPEG."""

    kind = "network"

    def __init__(
        self, uri: str, open_timeout_s: float = OPEN_TIMEOUT_S, read_timeout_s: float = READ_TIMEOUT_S
    ) -> None:
        super().__init__(uri)
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s

    def open(self) -> SourceInfo:
        """Connect, and wait for the first picture. Raises SourceError with the reason: within `open_timeout_s` where
        nothing answers; of a server that answers and sends nothing after as much again and `read_timeout_s`.
        """
        self.close()
        try:
            self._decoder = Decoder(self.uri, (self._open_timeout_s, self._read_timeout_s))
        except DecoderError as error:
            raise self.error(str(error)) from None
        info = self._decoder.info
        return SourceInfo(info.width, info.height, info.fps, None)

    def skip(self) -> bool:
        """Pass over a picture. Raises SourceError when the stream ends or brings none for `read_timeout_s`."""
        deadline = time.monotonic() + self._read_timeout_s
        found = self._opened.advance(self._read_timeout_s)
        # After a silence the decoder still gives up what it held back: a picture from before, not of now.
        if time.monotonic() >= deadline:
            raise self.error(f"sent no picture for {self._read_timeout_s:g} s")
        if not found:
            raise self.error("ended the stream")
        return True

    @property
    def camera_time_s(self) -> float | None:
        """Time of the last picture by RTP; None where the stream has none, and for what is no live stream."""
        return self._opened.position_s if self.uri.startswith("rtsp") else None


class HttpSource(Source):
    """A stream over HTTP: MJPEG read by `orion.mjpeg`, anything else by FFmpeg."""

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
            picture = _decoded(part) if part else None
            if picture is not None:
                return picture
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


def _decoded(jpeg: bytes) -> Pixels | None:
    """Return the picture, None if it is broken: the library says so, or complains of a size that cannot be."""
    try:
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if picture is None else np.asarray(picture, np.uint8)
