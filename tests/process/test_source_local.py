import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orion.device import DeviceSource
from orion.errors import EXIT_RESOURCE, SourceError
from orion.source import SourceInfo
from orion.sources import make_source
from tests.conftest import REPOSITORY
from tests.devices import VideoDevice
from tests.instances import running, until


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


_READ = """
import json, sys
import numpy as np
from orion.sources import make_source

source = make_source("0")
info = source.open()
dst = np.zeros((info.height, info.width, 3), np.uint8)
seen = []
for _ in range(6):
    assert source.skip() and source.read(dst) is dst
    seen.append([int(dst.min()), int(dst.max())])
print(json.dumps([[info.width, info.height, info.fps, info.frames], source.stream_time_s, seen]))
other = source.read(np.zeros((1, 1, 3), np.uint8))
assert other.shape == dst.shape
source.close()
source.close()
"""


def in_a_process(device: VideoDevice, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | device.environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_camera_is_read_in_place_and_in_its_order() -> None:
    with VideoDevice(fps=50) as device:
        for _ in range(2):
            done = in_a_process(device, _READ)
            assert (done.returncode, done.stderr) == (0, "")
            info, stream_time_s, seen = json.loads(done.stdout)
            assert info == [320, 240, 50, None]
            assert stream_time_s is None
            # One grey in each picture, every second one skipped, brighter by 2 x 8 of 219 steps.
            assert all(darkest == brightest for darkest, brightest in seen)
            steps = [(after - before) % 186 for (before, _), (after, _) in itertools.pairwise(seen)]
            assert steps == pytest.approx([18.6] * 5, abs=1.5)


def test_a_camera_that_another_program_has_is_told() -> None:
    with VideoDevice() as device:
        device.tell("busy")
        done = in_a_process(device, 'from orion.sources import make_source; make_source("0").open()')
        assert "SourceError: source 0: /dev/video0 is busy or no camera" in done.stderr
        assert done.stdout == ""


def test_a_run_reads_a_camera_and_finds_it_again_when_it_is_plugged_in(tmp_path: Path) -> None:
    with VideoDevice() as device, running(tmp_path, "--source", "0", "--attention", "off", **device.environment) as it:
        first = it.await_results(10)
        assert {(line["data"]["metadata"]["frame_width"], line["stream_id"]) for line in first} == {(320, "cam0")}
        device.tell("unplug")
        until(lambda: "stream_lost: source 0: /dev/video0 sends nothing" in it.errors(), "the loss is told")
        until(lambda: "/dev/video0: no such camera" in it.errors(), "why it is not found again is told")
        before = len(it.lines())
        device.tell("plug")
        until(lambda: "stream_restored" in it.errors(), "its return is told")
        it.await_results(before + 10)
        assert it.stop() == 0


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
