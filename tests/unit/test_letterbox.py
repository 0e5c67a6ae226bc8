import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orion.messages import Crop, Pixels, SessionSize
from workers.letterbox import GREY, Letterbox, place


@st.composite
def crops(draw: st.DrawFn) -> tuple[Crop, tuple[int, int]]:
    """Draw a frame between 16x16 and 8K and a piece of it for either session."""
    width, height = draw(st.integers(16, 7680)), draw(st.integers(16, 4320))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    inner = draw(st.integers(1, width - x)), draw(st.integers(1, height - y))
    size: SessionSize = draw(st.sampled_from([320, 640]))
    return Crop(x, y, *inner, size), (width, height)


@given(crops(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_the_way_back_is_the_inverse(drawn: tuple[Crop, tuple[int, int]], shares: list[float]) -> None:
    crop, (width, height) = drawn
    box = np.array(shares).reshape(2, 2) * np.array([width, height])
    placement = place(crop)
    back = placement.to_frame(*placement.to_input(box[:, 0], box[:, 1]))
    assert np.abs(np.stack(back, axis=1) - box).max() < 0.01


@given(crops())
def test_the_crop_fills_its_place(drawn: tuple[Crop, tuple[int, int]]) -> None:
    """Its corners go to the corners of a place inside the square, as long as the square on one side, and centred."""
    crop, _ = drawn
    side = crop.model
    placement = place(crop)
    left, top = placement.to_input(float(crop.x), float(crop.y))
    right, bottom = placement.to_input(float(crop.x + crop.width), float(crop.y + crop.height))
    assert (round(left), round(top)) == (placement.left, placement.top)
    assert (round(right - left), round(bottom - top)) == (placement.width, placement.height)
    assert max(placement.width, placement.height) == side
    assert 0 <= side - placement.width - 2 * placement.left <= 1
    assert 0 <= side - placement.height - 2 * placement.top <= 1
    exact = min(crop.width, crop.height) * side / max(crop.width, crop.height)
    assert exact - 1 < min(placement.width, placement.height) <= max(1.0, exact)


def reference(frame: Pixels, size: int) -> NDArray[np.uint8]:
    """Letterbox a whole BGR frame in the plainest way."""
    height, width = frame.shape[:2]
    gain = min(size / width, size / height)
    inner = int(width * gain + 1e-9), int(height * gain + 1e-9)
    canvas = np.full((size, size, 3), GREY, np.uint8)
    left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(frame, inner, interpolation=cv2.INTER_LINEAR)
    return canvas[..., ::-1].transpose(2, 0, 1)[None]


@pytest.mark.parametrize("size", [320, 640])
@pytest.mark.parametrize("rgb", [False, True])
def test_pixels_are_those_of_the_plain_letterbox(size: SessionSize, rgb: bool) -> None:
    """Also where an odd number of pixels becomes one, after another shape was there before, and for crops, of frames
    that cannot be written.
    """
    random = np.random.default_rng(1)
    tensor = np.zeros((1, 3, size, size), np.uint8)
    letterbox = Letterbox(tensor)
    letterbox.rgb = rgb
    for width, height in [(size * 3, size * 3 // 2), (500, 375), (375, 500), (size, size), (1920, 1080), (33, 17)]:
        frame = random.integers(0, 256, (height, width, 3), np.uint8)
        given = np.ascontiguousarray(frame[..., ::-1]) if rgb else frame
        given.flags.writeable = False
        whole, piece = Crop(0, 0, width, height, size), Crop(width // 5, height // 7, width // 2, height // 3, size)
        exact = [
            Crop(width - times * size, height - times * 150, times * size, times * 150, size)
            for times in (1, 2, 3)
            if width >= times * size and height >= times * 150
        ]
        for crop in (whole, piece, *exact, whole):
            letterbox.fill(given, crop)
            inside = frame[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
            assert np.array_equal(tensor, reference(inside, size))


def test_nothing_large_is_allocated_once_it_has_seen_the_shape() -> None:
    frame = np.zeros((1080, 1920, 3), np.uint8)
    letterbox = Letterbox(np.zeros((1, 3, 640, 640), np.uint8))
    crop = Crop(0, 0, 1920, 1080, 640)
    letterbox.fill(frame, crop)
    tracemalloc.start()
    letterbox.fill(frame, crop)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


@settings(max_examples=30)
@given(crops())
def test_any_crop_of_any_frame_can_be_filled(drawn: tuple[Crop, tuple[int, int]]) -> None:
    crop, (width, height) = drawn
    frame = np.broadcast_to(np.full(3, 255, np.uint8), (1, 1, 3))
    tensor = np.zeros((1, 3, crop.model, crop.model), np.uint8)
    whole = np.ascontiguousarray(np.broadcast_to(frame, (min(height, 600), min(width, 600), 3)))
    x, y = crop.x % whole.shape[1], crop.y % whole.shape[0]
    piece = Crop(x, y, min(crop.width, whole.shape[1] - x), min(crop.height, whole.shape[0] - y), crop.model)
    placement = Letterbox(tensor).fill(whole, piece)
    assert (tensor == 255).sum() == 3 * placement.width * placement.height
    assert (tensor == GREY).sum() == tensor.size - 3 * placement.width * placement.height
