import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orion.errors import SourceError
from orion.messages import Pixels
from orion.source import Source, SourceInfo
from orion.sources import make_source
from tests.servers import BlackHole, RtspServer
from tests.videos import picture, write_video

LOGIN = ("viewer", "hunter/2@x")
SECRET = "viewer:hunter%2F2%40x"
PATIENCE_S = 15


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("rtsp") / "v.mp4", 300)


@pytest.fixture
def server(video: Path) -> Iterator[RtspServer]:
    with RtspServer(video) as running:
        yield running


def buffer() -> Pixels:
    return np.zeros((240, 320, 3), np.uint8)


def read_until_lost(source: Source) -> tuple[str, float]:
    """Return the error that ends the stream, and how long the last read took."""
    deadline, dst = time.monotonic() + PATIENCE_S, buffer()
    while time.monotonic() < deadline:
        begin = time.monotonic()
        try:
            source.read(dst)
        except SourceError as error:
            return str(error), time.monotonic() - begin
    pytest.fail("the source was never lost")


def test_pictures_arrive_in_order_and_in_place(server: RtspServer, capfd: pytest.CaptureFixture[str]) -> None:
    source = make_source(server.uri)
    assert source.open() == SourceInfo(320, 240, 10, None)
    dst = buffer()
    for index in range(12):
        assert source.read(dst) is dst
        assert np.abs(dst.astype(int) - picture(index, 320, 240)).mean() < 4
    assert source.skip()
    assert source.stream_time_s is None
    source.close()
    assert capfd.readouterr() == ("", "")


def test_a_real_h264_video_is_read(testdata: Path) -> None:
    with RtspServer(testdata / "video" / "one_by_one_person.mp4") as server:
        source = make_source(server.uri)
        info = source.open()
        assert (info.width, info.height, info.frames) == (768, 432, None)
        dst = np.zeros((432, 768, 3), np.uint8)
        for _ in range(5):
            assert source.read(dst) is dst
        assert dst.std() > 10
        source.close()


def test_a_server_that_is_killed_is_lost_and_found_again(server: RtspServer) -> None:
    source = make_source(server.uri, read_timeout_s=2)
    source.open()
    assert source.read(buffer()) is not None
    server.stop()
    what, _ = read_until_lost(source)
    assert "ended the stream" in what
    with pytest.raises(SourceError, match="Connection refused"):
        source.open()
    server.start()
    source.open()
    assert source.read(buffer()) is not None
    source.close()


def test_a_server_that_comes_back_with_another_size_is_read_in_it(server: RtspServer, tmp_path: Path) -> None:
    source = make_source(server.uri, read_timeout_s=2)
    source.open()
    server.stop()
    read_until_lost(source)
    server.video = write_video(tmp_path / "large.mp4", 100, 640, 480)
    server.start()
    info = source.open()
    assert (info.width, info.height) == (640, 480)
    got = source.read(buffer())
    assert got is not None
    assert got.shape == (480, 640, 3)
    source.close()


def test_a_server_that_freezes_is_lost_after_the_read_timeout(server: RtspServer) -> None:
    source = make_source(server.uri, read_timeout_s=1)
    source.open()
    assert source.read(buffer()) is not None
    server.freeze()
    what, took_s = read_until_lost(source)
    assert "sent no picture for 1 s" in what
    assert took_s < 5
    server.thaw()
    source.open()
    assert source.read(buffer()) is not None
    source.close()


def test_the_end_of_what_a_server_sends_is_a_loss_and_no_end(tmp_path: Path) -> None:
    with RtspServer(write_video(tmp_path / "short.mp4", 15)) as server:
        source = make_source(server.uri, read_timeout_s=2)
        source.open()
        what, _ = read_until_lost(source)
        assert "ended the stream" in what or "sent no picture" in what
        source.close()


@pytest.mark.parametrize(
    ("login", "path", "what"),
    [("", "/stream", "401"), ("viewer:wrong@", "/stream", "user or password"), (f"{SECRET}@", "/none", "404")],
    ids=["no password", "wrong password", "wrong path"],
)
def test_a_refusal_says_what_to_check_and_no_secret(
    video: Path, login: str, path: str, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with RtspServer(video, login=LOGIN) as server:
        source = make_source(f"rtsp://{login}127.0.0.1:{server.port}{path}")
        with pytest.raises(SourceError, match=what) as refusal:
            source.open()
    said = str(refusal.value) + "".join(capfd.readouterr())
    assert f"127.0.0.1:{server.port}{path}" in said
    assert "hunter" not in said
    assert "wrong@" not in said


def test_the_right_password_opens(video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with RtspServer(video, login=LOGIN) as server:
        source = make_source(f"rtsp://{SECRET}@127.0.0.1:{server.port}/stream")
        source.open()
        assert source.read(buffer()) is not None
        assert "hunter" not in source.safe_uri
        source.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_black_hole_does_not_hold_the_reader(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    with BlackHole() as hole:
        source = make_source(f"{scheme}://viewer:hunter2@127.0.0.1:{hole.port}/stream", open_timeout_s=0.5)
        begin = time.monotonic()
        with pytest.raises(SourceError, match="no answer") as refusal:
            source.open()
        assert time.monotonic() - begin < 6
    assert "hunter2" not in str(refusal.value) + "".join(capfd.readouterr())


def test_a_host_without_a_name_is_told_apart() -> None:
    with pytest.raises(SourceError, match="name is unknown"):
        make_source("rtsp://no-such-camera.invalid/stream", open_timeout_s=2).open()
