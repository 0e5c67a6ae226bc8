"""What the name of a demo source says."""

import pytest

from orion.demo import DemoFormat


def test_demo_alone_is_720p_at_30() -> None:
    assert DemoFormat.parse("demo") == DemoFormat(1280, 720, 30.0)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("demo:640x480@15", (640, 480, 15.0)), ("demo:64x64@0.1", (64, 64, 0.1)), ("demo:480x854@12.5", (480, 854, 12.5))],
)
def test_size_and_rate_are_read_from_the_name(uri: str, expected: tuple[int, int, float]) -> None:
    assert DemoFormat.parse(uri) == DemoFormat(*expected)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("demo:", "demo:WIDTHxHEIGHT@FPS"),
        ("demo:640x480", "demo:WIDTHxHEIGHT@FPS"),
        ("demo:640@30", "demo:WIDTHxHEIGHT@FPS"),
        ("demo:640x480x3@30", "demo:WIDTHxHEIGHT@FPS"),
        ("demo:640x480@30@2", "demo:WIDTHxHEIGHT@FPS"),
        ("Demo", "demo:WIDTHxHEIGHT@FPS"),
        ("demo:x480@30", "width must be a whole number, not ''"),
        ("demo:64.5x480@30", "width must be a whole number, not '64.5'"),
        ("demo:-640x480@30", "width must be a whole number, not '-640'"),
        ("demo:640x4_80@30", "height must be a whole number, not '4_80'"),
        ("demo:640x480@", "frame rate must be a number, not ''"),
        ("demo:640x480@nan", "frame rate must be a number, not 'nan'"),
        ("demo:640x480@1e2", "frame rate must be a number, not '1e2'"),
        ("demo:63x480@30", "width must be 64 to 7680, not 63"),
        ("demo:640x7681@30", "height must be 64 to 7680, not 7681"),
        (f"demo:640x{'9' * 400}@30", "height must be 64 to 7680, not inf"),
        ("demo:640x480@0", "frame rate must be 0.1 to 240, not 0"),
        ("demo:640x480@240.1", "frame rate must be 0.1 to 240, not 240.1"),
    ],
)
def test_a_wrong_name_is_refused_with_the_part_that_is_wrong(uri: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace(".", r"\.")):
        DemoFormat.parse(uri)


def test_numbers_that_come_otherwise_have_the_same_limits() -> None:
    with pytest.raises(ValueError, match="height"):
        DemoFormat(640, 63)
    with pytest.raises(ValueError, match="frame rate"):
        DemoFormat(640, 480, float("nan"))
