import pytest
from hypothesis import given
from hypothesis import strategies as st

from orion.uri import mask, split


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("demo:640x480@10", "demo:640x480@10"),
        ("/videos/user=me@home.mp4", "/videos/user=me@home.mp4"),
        ("rtsp://cam/stream", "rtsp://cam/stream"),
        ("rtsp://admin:hunter2@cam:554/stream?channel=1", "rtsp://***@cam:554/stream?channel=1"),
        ("rtsp://admin:a/b?c@d@cam/stream", "rtsp://***@cam/stream"),
        (
            "http://cam/video.cgi?loginuse=admin&loginpas=hunter2&rate=5",
            "http://cam/video.cgi?loginuse=***&loginpas=***&rate=5",
        ),
        ("http://cam/v?Token=abc#x", "http://cam/v?Token=***#x"),
        ("rtsp://cam/user=admin&password=hunter2&channel=1.sdp", "rtsp://cam/user=***&password=***&channel=1.sdp"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(uri: str, shown: str) -> None:
    assert mask(uri) == shown


@given(st.text())
def test_no_password_whatever_its_characters_is_shown(secret: str) -> None:
    assert mask(f"rtsp://admin:{secret}@cam/stream") == "rtsp://***@cam/stream"


def test_an_address_is_split() -> None:
    parts = split("rtsp://admin:p%40ss@[::1]:8554/stream")
    assert (parts.hostname, parts.port, parts.path) == ("::1", 8554, "/stream")


@pytest.mark.parametrize(
    "uri", ["rtsp://", "rtsp:///path", "rtsp://cam:no/", "rtsp://cam:99999/", "rtsp://[::1/", "http://a:hunter2/x@cam"]
)
def test_an_address_that_cannot_be_read_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ValueError, match="the address must read") as refusal:
        split(uri)
    assert "hunter2" not in str(refusal.value)
