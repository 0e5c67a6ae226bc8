"""Small videos for tests, made here, so that tests run without the test data."""

from fractions import Fraction
from pathlib import Path

import av
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


def with_sound(path: Path, video_s: int, sound_s: int) -> Path:
    """Write an MPEG transport stream of `picture`s at 10 Hz, with sound that lasts longer, and return its path."""
    with av.open(path, "w", "mpegts") as muxer:
        video, sound = muxer.add_stream("mpeg4", 10), muxer.add_stream("mp2", 48_000)
        assert isinstance(video, av.VideoStream)
        assert isinstance(sound, av.AudioStream)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        for tenth in range(10 * sound_s):
            if tenth < 10 * video_s:
                frame = av.VideoFrame.from_ndarray(picture(tenth, 320, 240), "bgr24")
                frame.pts, frame.time_base = tenth, Fraction(1, 10)
                muxer.mux(video.encode(frame))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), "s16p", "mono")
            silence.sample_rate, silence.pts, silence.time_base = 48_000, tenth * 4800, Fraction(1, 48_000)
            muxer.mux(sound.encode(silence))
        muxer.mux(video.encode(None))
        muxer.mux(sound.encode(None))
    return path
