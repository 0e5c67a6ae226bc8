import itertools
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orion.capture import Capture, CaptureEvent, CaptureSettings, StreamEnded
from orion.decoder import Decoder
from orion.errors import EXIT_RESOURCE, SourceError
from orion.ledger import Ledger
from orion.messages import Pixels
from orion.source import SourceInfo
from orion.sources import make_source
from orion.stream import RingMaker
from tests.videos import picture, write_video


def buffer(info: SourceInfo) -> Pixels:
    return np.zeros((info.height, info.width, 3), np.uint8)


def test_every_picture_of_a_file_lands_in_the_buffer_given(tmp_path: Path) -> None:
    source = make_source(str(write_video(tmp_path / "v.mp4", 25)))
    info = source.open()
    assert info == SourceInfo(320, 240, 10, 25)
    assert source.stream_time_s is None
    dst = buffer(info)
    times: list[float | None] = []
    for index in range(25):
        assert source.read(dst) is dst
        assert np.abs(dst.astype(int) - picture(index, 320, 240)).mean() < 4
        times.append(source.stream_time_s)
    assert source.read(dst) is None
    assert not source.skip()
    assert times == pytest.approx([index / 10 for index in range(25)])
    source.close()
    source.close()


def test_skipping_passes_over_pictures_and_their_time(tmp_path: Path) -> None:
    source = make_source(str(write_video(tmp_path / "v.mp4", 6)))
    dst = buffer(source.open())
    assert source.skip()
    assert source.skip()
    assert source.read(dst) is dst
    assert np.abs(dst.astype(int) - picture(2, 320, 240)).mean() < 4
    assert source.stream_time_s == pytest.approx(0.2)
    source.close()


def test_a_buffer_of_another_size_is_left_alone(tmp_path: Path) -> None:
    source = make_source(str(write_video(tmp_path / "v.mp4", 2)))
    source.open()
    dst = np.zeros((10, 10, 3), np.uint8)
    got = source.read(dst)
    assert got is not None
    assert got is not dst
    assert got.shape == (240, 320, 3)
    assert not dst.any()
    source.close()


def test_a_file_is_read_again_after_it_was_closed(tmp_path: Path) -> None:
    source = make_source(str(write_video(tmp_path / "v.mp4", 3)))
    for _ in range(2):
        dst, count = buffer(source.open()), 0
        while source.read(dst) is not None:
            count += 1
        assert count == 3
        assert source.stream_time_s == pytest.approx(0.2)
        source.close()


def test_a_file_that_ends_inside_a_picture_ends_normally_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_video(tmp_path / "whole.avi", 20, codec="MJPG")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = make_source(str(cut))
    dst, count = buffer(source.open()), 0
    while source.read(dst) is not None:
        count += 1
    assert 5 <= count <= 15
    source.close()
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == [
        f"source {cut}: ended after {count} of the 20 pictures that it promises: it is cut off or damaged"
    ]


def test_a_whole_file_ends_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_source(str(write_video(tmp_path / "whole.mp4", 20)))
    dst = buffer(source.open())
    while source.read(dst) is not None:
        pass
    source.close()
    assert caplog.messages == []


def test_a_damaged_stretch_does_not_end_a_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 30, codec="MJPG")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data) - 3) if data[at : at + 3] == b"\xff\xd8\xff"]
    for at in starts[10:13]:
        data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    source = make_source(str(path))
    dst, count = buffer(source.open()), 0
    while source.read(dst) is not None:
        count += 1
    assert 27 <= count <= 30
    assert np.abs(dst.astype(int) - picture(29, 320, 240)).mean() < 4
    source.close()


def unreadable(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    whole = write_video(tmp_path / "whole.mp4", 20)
    files = {
        "empty": (b"", "the file is empty"),
        "text": (b"no video\n" * 50, "no video that can be decoded"),
        "random": (os.urandom(5000), "no video that can be decoded"),
        "no index": (whole.read_bytes()[: whole.stat().st_size // 2], "is cut off"),
    }
    found = {}
    for name, (data, what) in files.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data)
        found[name] = (path, what)
    return found | {"folder": (tmp_path, "is a folder")}


@pytest.mark.parametrize("name", ["empty", "text", "random", "no index", "folder"])
def test_a_file_that_is_no_video_says_why(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, what = unreadable(tmp_path)[name]
    with pytest.raises(SourceError, match=what) as refusal:
        make_source(str(path)).open()
    assert refusal.value.exit_code == EXIT_RESOURCE
    assert str(path) in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_goes_away_before_it_is_opened(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 2)
    source = make_source(str(path))
    path.unlink()
    with pytest.raises(SourceError, match="No such file"):
        source.open()


def test_a_size_that_changes_inside_a_file_is_given_as_it_is(
    tmp_path: Path, program: Callable[[str, str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    ffmpeg = program("ffmpeg", "ffmpeg")
    joined = tmp_path / "joined.ts"
    for size in ("320x240", "640x480", "160x120"):
        part = tmp_path / f"{size}.ts"
        filters = f"color=white:size={size}:rate=10:duration=1,drawbox=w=iw/2:color=black:t=fill"
        subprocess.run(
            [ffmpeg, "-v", "error", "-f", "lavfi", "-i", filters, "-c:v", "mpeg4", "-q:v", "2", "-bf", "0", part],
            check=True,
        )
        with joined.open("ab") as out:
            out.write(part.read_bytes())
    source = make_source(str(joined))
    dst = buffer(source.open())
    sizes: list[tuple[int, ...]] = []
    times: list[float | None] = []
    while (got := source.read(dst)) is not None:
        assert (got is dst) == (got.shape == (240, 320, 3))
        height, width, _ = got.shape
        assert got[:, : width // 2 - 10].max() < 40
        assert got[:, width // 2 + 10 :].min() > 200
        sizes.append((width, height))
        times.append(source.stream_time_s)
    assert sizes == [(320, 240)] * 10 + [(640, 480)] * 10 + [(160, 120)] * 10
    assert times == pytest.approx([index / 10 for index in range(30)])
    source.close()
    assert capfd.readouterr() == ("", "")


def test_a_real_video_gives_as_many_pictures_as_it_has_references(testdata: Path) -> None:
    source = make_source(str(testdata / "video" / "store_aisle.mp4"))
    dst, count = buffer(source.open()), 0
    while source.read(dst) is dst:
        count += 1
    source.close()
    reference = json.loads((testdata / "reference" / "store_aisle.yolo11n-640.json").read_text())
    assert count == len(reference["detections"])


class _Outbound:
    """Hears what a capture thread has to say."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def post(self, item: CaptureEvent) -> None:
        if isinstance(item, StreamEnded):
            self.ended.set()

    def wake(self) -> None:
        pass


def test_pictures_beyond_the_rate_are_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(str(write_video(tmp_path / "v.mp4", 80, fps=40)))
    convert, converted = Decoder.picture, itertools.count()
    monkeypatch.setattr(Decoder, "picture", lambda self, dst: (next(converted), convert(self, dst))[1])
    rings, ledger, outbound = RingMaker("rate", "run", 4, lambda _: None), Ledger(every_frame=False), _Outbound()
    capture = Capture("cam0", source, ledger, rings.make, outbound, CaptureSettings(rate_hz=5))
    capture.play()
    capture.start()
    assert outbound.ended.wait(30)
    assert capture.join(5)
    rings.close_all()
    accounts = ledger.accounts()
    assert (accounts.captured, accounts.dropped["rate"], next(converted)) == (80, 70, 10)
