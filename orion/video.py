"""Videos that FFmpeg decodes, and files of them. Used by the capture threads, like every source."""

import logging
from pathlib import Path
from typing import Final

from orion.decoder import Decoder, DecoderError
from orion.messages import Pixels
from orion.source import Source, SourceInfo, StreamClock

_log = logging.getLogger(__name__)

_WHOLE: Final = 0.9
"""Share of the pictures that a file promises with which it counts as whole: some formats only estimate them."""


class VideoSource(Source):
    """What the sources that FFmpeg decodes have in common; `open` sets the decoder."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._decoder: Decoder | None = None

    @property
    def _opened(self) -> Decoder:
        assert self._decoder is not None, f"source {self.safe_uri} is not open"
        return self._decoder

    def read(self, dst: Pixels) -> Pixels | None:
        """Decode the next picture; None at the end. Raises SourceError as `skip` does, and for an unknown format."""
        if not self.skip():
            return None
        try:
            return self._opened.picture(dst)
        except DecoderError as error:
            raise self.error(str(error)) from error

    def close(self) -> None:
        """Let go of the video. Twice is once."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None


class FileSource(VideoSource):
    """A video file. Ends where its pictures end, also in the middle of one."""

    kind = "file"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._clock = StreamClock(None)
        self._promised = self._passed = 0

    def open(self) -> SourceInfo:
        """Open the file. Raises SourceError if it cannot be read, is empty or is no video."""
        self.close()
        self._check_readable(Path(self.uri))
        try:
            self._decoder = Decoder(str(Path(self.uri).absolute()))
        except DecoderError:
            raise self.error(
                "no video that can be decoded: the file is not a video, is cut off (an MP4 that was not closed has no "
                "index), or uses an unknown codec; check it with ffprobe"
            ) from None
        info = self._decoder.info
        self._clock = StreamClock(info.fps)
        self._promised, self._passed = self._decoder.promised or 0, 0
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

    def skip(self) -> bool:
        """Pass over a picture; False at the end."""
        if not self._opened.advance(None):
            if self._passed < _WHOLE * self._promised:
                _log.warning(
                    "source %s: ended after %d of the %d pictures that it promises: it is cut off or damaged",
                    *(self.safe_uri, self._passed, self._promised),
                )
            return False
        self._passed += 1
        self._clock.advance(self._opened.position_s)
        return True

    @property
    def stream_time_s(self) -> float | None:
        """Time of the last picture by the file, or by its rate where the file does not say."""
        return self._clock.time_s
