"""Small videos for tests, made here, so that tests run without the test data."""

from pathlib import Path

import cv2
import numpy as np

from orion.messages import Pixels


def picture(index: int, width: int, height: int) -> Pixels:
    """Return picture `index` of a test video: a grey that tells the index, with a bright bar that moves."""
    pixels = np.full((height, width, 3), 40 + index % 20 * 8, np.uint8)
    left = index * 7 % (width - 8)
    pixels[height // 4 : height // 2, left : left + 8] = 255
    return pixels


def jpeg(index: int, width: int, height: int) -> bytes:
    """Return `picture` as a JPEG file."""
    written, data = cv2.imencode(".jpg", picture(index, width, height))
    assert written
    return data.tobytes()


def write_video(
    path: Path, frames: int, width: int = 320, height: int = 240, fps: float = 10, codec: str = "mp4v"
) -> Path:
    """Write a video of `picture`s and return its path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(picture(index, width, height))
    writer.release()
    return path
