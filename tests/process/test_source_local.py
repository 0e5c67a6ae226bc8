from pathlib import Path

import numpy as np
import pytest

from orion.device import DeviceSource
from orion.errors import EXIT_RESOURCE, SourceError
from orion.source import SourceInfo
from orion.sources import make_source


def test_a_camera_that_is_absent_says_what_to_check(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="source 97: /dev/video97: no such camera") as refusal:
        make_source("97").open()
    assert refusal.value.exit_code == EXIT_RESOURCE
    assert capfd.readouterr() == ("", "")


def test_what_is_no_camera_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "video3").symlink_to("/dev/null")
    with pytest.raises(SourceError, match="video3 is busy or no camera"):
        DeviceSource("3", devices=tmp_path).open()
    assert capfd.readouterr() == ("", "")


def test_a_device_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "video0").mkdir()
    with pytest.raises(SourceError, match="Is a directory"):
        DeviceSource("0", devices=tmp_path).open()


def test_a_real_camera_is_read() -> None:
    cameras = sorted(Path("/dev").glob("video[0-9]*"))
    if not cameras:
        pytest.skip("needs a camera, or the kernel module vivid")
    source = make_source(cameras[0].name.removeprefix("video"))
    info = source.open()
    dst = np.zeros((info.height, info.width, 3), np.uint8)
    assert source.read(dst) is dst
    assert source.stream_time_s is None
    source.close()


def test_the_demo_never_ends_and_keeps_its_own_time() -> None:
    source = make_source("demo:320x240@20")
    assert source.open() == SourceInfo(320, 240, 20, None)
    dst = np.zeros((240, 320, 3), np.uint8)
    assert source.read(dst) is dst
    assert source.stream_time_s == 0
    first = dst.copy()
    for _ in range(40):
        assert source.skip()
    assert source.read(dst) is dst
    assert source.stream_time_s == pytest.approx(41 / 20)
    other = source.read(np.zeros((1, 1, 3), np.uint8))
    assert other is not None
    assert other.shape == (240, 320, 3)
    source.open()
    assert source.read(dst) is dst
    assert np.array_equal(dst, first)
    source.close()
