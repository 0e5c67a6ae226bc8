import struct
import time
from pathlib import Path

import numpy as np
import pytest

from orion.errors import SourceError
from orion.messages import Pixels
from orion.source import Source, SourceInfo
from orion.sources import make_source
from tests.servers import MjpegServer, PlainServer
from tests.videos import jpeg, picture, with_sound, write_video

PICTURES = [jpeg(index, 320, 240) for index in range(10)]
LOGIN = ("viewer", "hunter/2@x")
SECRET = "viewer:hunter%2F2%40x"


def buffer() -> Pixels:
    return np.zeros((240, 320, 3), np.uint8)


def read_until_lost(source: Source) -> tuple[int, str]:
    """Return how many pictures came before the error that ends the stream, and the error."""
    deadline, count = time.monotonic() + 15, 0
    while time.monotonic() < deadline:
        try:
            source.read(buffer())
        except SourceError as error:
            return count, str(error)
        count += 1
    pytest.fail("the source was never lost")


@pytest.mark.parametrize(("lengths", "boundary"), [(True, "frame"), (False, "frame"), (True, "--frame")])
def test_pictures_arrive_in_order_and_in_place(lengths: bool, boundary: str) -> None:
    with MjpegServer(PICTURES, lengths=lengths, boundary=boundary) as server:
        source = make_source(server.uri)
        assert source.open() == SourceInfo(320, 240, None, None)
        dst = buffer()
        for index in range(25):
            assert source.read(dst) is dst
            assert np.abs(dst.astype(int) - picture(index % 10, 320, 240)).mean() < 4
        assert source.stream_time_s is None
        source.close()
        source.close()


def test_skipping_passes_over_pictures() -> None:
    with MjpegServer(PICTURES) as server:
        source = make_source(server.uri)
        source.open()
        assert source.skip()
        assert source.skip()
        dst = buffer()
        assert source.read(dst) is dst
        assert np.abs(dst.astype(int) - picture(2, 320, 240)).mean() < 4
        source.close()


def test_a_size_that_changes_mid_stream_comes_as_it_is() -> None:
    sizes = [(320, 240), (640, 480), (160, 120)]
    with MjpegServer([jpeg(index, *size) for size in sizes for index in range(3)]) as server:
        source = make_source(server.uri)
        source.open()
        shapes = []
        for _ in range(9):
            dst = buffer()
            got = source.read(dst)
            assert got is not None
            assert (got is dst) == (got.shape == dst.shape)
            shapes.append((got.shape[1], got.shape[0]))
        assert shapes == [size for size in sizes for _ in range(3)]
        source.close()


@pytest.mark.parametrize(
    ("after", "what"), [("end", "ended the stream"), ("cut", "ended the stream"), ("silent", "sent nothing for 0.5 s")]
)
def test_the_end_of_a_stream_is_a_loss_and_no_end(after: str, what: str) -> None:
    with MjpegServer(PICTURES, after=after) as server:  # type: ignore[arg-type]
        source = make_source(server.uri, read_timeout_s=0.5)
        source.open()
        count, said = read_until_lost(source)
        assert count == len(PICTURES)
        assert what in said
        source.open()
        assert source.read(buffer()) is not None
        source.close()


def test_a_broken_picture_is_passed_over() -> None:
    broken = PICTURES[1][:200]
    # Its header says 40000 x 40000, more than the library takes.
    size_at = PICTURES[1].index(b"\xff\xc0") + 5
    vast = PICTURES[1][:size_at] + struct.pack(">HH", 40_000, 40_000) + PICTURES[1][size_at + 4 :]
    with MjpegServer([PICTURES[0], b"", b"no picture", broken[:20], vast, PICTURES[3]]) as server:
        source = make_source(server.uri)
        source.open()
        dst = buffer()
        for index in (0, 3, 0, 3):
            assert source.read(dst) is dst
            assert np.abs(dst.astype(int) - picture(index, 320, 240)).mean() < 4
        source.close()


def test_nothing_but_garbage_is_no_stream(capfd: pytest.CaptureFixture[str]) -> None:
    with MjpegServer([b"no picture"]) as server:
        source = make_source(server.uri, read_timeout_s=0.5)
        with pytest.raises(SourceError, match="no picture that can be decoded"):
            source.open()
        source.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
def test_a_password_opens_and_is_never_shown(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    with MjpegServer(PICTURES, login=LOGIN, scheme=scheme) as server:  # type: ignore[arg-type]
        source = make_source(server.uri.replace("//", f"//{SECRET}@"))
        source.open()
        assert source.read(buffer()) is not None
        source.close()
        for login in ("", "viewer:wrong@"):
            with pytest.raises(SourceError, match=r"401 Unauthorized: user or password") as refusal:
                make_source(server.uri.replace("//", f"//{login}")).open()
            assert "wrong@" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_sound_that_goes_on_does_not_hide_that_the_pictures_have_stopped(tmp_path: Path) -> None:
    content = with_sound(tmp_path / "v.ts", video_s=2, sound_s=60).read_bytes()
    with PlainServer(content, "video/mp2t", at_once=len(content) // 6) as server:
        source = make_source(server.uri, open_timeout_s=2, read_timeout_s=1)
        source.open()
        count, said = read_until_lost(source)
        assert 15 <= count <= 20
        assert "sent no picture for 1 s" in said
        source.close()


def test_a_wrong_path_is_told() -> None:
    with MjpegServer(PICTURES) as server, pytest.raises(SourceError, match="404 Not Found: check the path"):
        make_source(f"http://127.0.0.1:{server.port}/nothing").open()


def test_a_server_that_is_down_is_told() -> None:
    with MjpegServer(PICTURES) as server:
        uri = server.uri
    with pytest.raises(SourceError, match="Connection refused"):
        make_source(uri).open()


def test_another_kind_of_video_over_http_is_read_too(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", 10, codec="MJPG").read_bytes()
    with PlainServer(video, "video/x-msvideo") as server:
        source = make_source(server.uri, read_timeout_s=2)
        info = source.open()
        assert (info.width, info.height, info.frames) == (320, 240, None)
        assert source.skip()
        count, said = read_until_lost(source)
        assert count == 9
        assert "ended the stream" in said
        source.close()


def test_a_web_page_is_no_video() -> None:
    page = PlainServer(b"<html>login</html>", "text/html")
    with page as server, pytest.raises(SourceError, match="the server sends text/html"):
        make_source(server.uri, open_timeout_s=2).open()


def test_a_login_that_is_not_supported_is_told_like_a_wrong_one() -> None:
    with MjpegServer(PICTURES, login=LOGIN, scheme="Bearer") as server:
        source = make_source(server.uri.replace("//", f"//{SECRET}@"))
        with pytest.raises(SourceError, match="401 Unauthorized"):
            source.open()
