"""The pictures of a video, read by the source that the program reads files with."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

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
