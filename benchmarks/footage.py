"""Videos: read by the source that the program reads files with, and written for those who need some of their own."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import count, groupby
from pathlib import Path

import av
import numpy as np

from orion.messages import Pixels
from orion.video import FileSource


def frames(video: Path, every: int = 1) -> Iterator[tuple[int, float, Pixels]]:
    """Yield number, presentation time in seconds and picture (H, W, 3) uint8 BGR of every `every`-th frame.

    Raises SourceError for what is no video.
    """
    source, nowhere = FileSource(str(video)), np.empty((0, 0, 3), np.uint8)
    source.open()
    try:
        for number in count():
            if number % every:
                if not source.skip():
                    return
                continue
            picture = source.read(nowhere)
            if picture is None:
                return
            yield number, source.stream_time_s or 0.0, picture
    finally:
        source.close()


def write(
    path: Path, pictures: Iterable[Pixels], codec: str = "mpeg4", container: str = "mpegts", fps: int = 10
) -> Path:
    """Write a video of pictures (H, W, 3) uint8 BGR and return its path. Where their size changes a stream with its own
    head follows, as from a camera that is set to another size; not every container can have that.
    """
    with path.open("wb") as out:
        for (height, width, _), part in groupby(enumerate(pictures), key=lambda numbered: numbered[1].shape):
            with av.open(out, "w", container) as muxer:
                stream = muxer.add_stream(codec, fps)
                assert isinstance(stream, av.VideoStream)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                for number, picture in part:
                    frame = av.VideoFrame.from_ndarray(picture, "bgr24")
                    frame.pts, frame.time_base = number, Fraction(1, fps)
                    muxer.mux(stream.encode(frame))
                muxer.mux(stream.encode(None))
    return path
