import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.scoring import xywh
from orion.messages import Crop, SessionSize
from workers.card import Layout
from workers.decode import MAX_DETECTIONS, Decoder, Rules
from workers.letterbox import place

FRAME = (640, 640)


def decoder(layout: Layout = "grid", class_ids: tuple[int, ...] = (0,), confidence: float = 0.4) -> Decoder:
    return Decoder(Rules(640, layout, class_ids, confidence, 0.45))


def grid(rows: list[list[float]], classes: int = 1) -> NDArray[np.float32]:
    """Build a (1, 4 + classes, N) head from rows of x1, y1, x2, y2 and one score a class."""
    table = np.array(rows, np.float32).reshape(-1, 4 + classes)
    centre = (table[:, :2] + table[:, 2:4]) / 2
    return np.concatenate([centre, table[:, 2:4] - table[:, :2], table[:, 4:]], axis=1).T[None]


def whole(width: int = 640, height: int = 640, size: SessionSize = 640) -> Crop:
    return Crop(0, 0, width, height, size)


def test_boxes_are_rounded_clipped_and_best_first() -> None:
    raw = grid([[10.4, 10.6, 50.4, 50.6, 0.5], [-20, 600.2, 30, 700, 0.9], [100, 100, 200, 200, 0.39]])
    found = decoder().decode(raw, place(whole()), FRAME)
    assert xywh(found).tolist() == [[0, 600, 30, 40], [10, 11, 40, 40]]
    assert [one.confidence for one in found] == pytest.approx([0.9, 0.5])


def test_a_score_beyond_one_is_one() -> None:
    (found,) = decoder().decode(grid([[10, 10, 50, 50, 1.002]]), place(whole()), FRAME)
    assert found.confidence == 1.0


def test_the_threshold_itself_counts() -> None:
    assert len(decoder(confidence=0.4).decode(grid([[10, 10, 50, 50, 0.4]]), place(whole()), FRAME)) == 1


@pytest.mark.parametrize(
    "row",
    [
        [10, 10, 50, 50, np.nan],
        [10, 10, 50, 50, np.inf],
        [np.nan, 10, 50, 50, 0.9],
        [10, 10, np.inf, 50, 0.9],
        [50, 10, 10, 50, 0.9],
        [10, 10, 10, 50, 0.9],
        [10, 10, 50, 10, 0.9],
        [-90, 10, -50, 50, 0.9],
        [640, 10, 700, 50, 0.9],
        [10.1, 10, 10.3, 50, 0.9],
    ],
    ids=[
        "nan score",
        "inf score",
        "nan place",
        "inf size",
        "negative",
        "no width",
        "no height",
        "left",
        "right",
        "thin",
    ],
)
def test_broken_and_empty_boxes_are_dropped_and_hide_no_other(row: list[float]) -> None:
    sound = [10, 10, 50, 50, 0.6]
    assert xywh(decoder().decode(grid([row, sound]), place(whole()), FRAME)).tolist() == [[10, 10, 40, 40]]
    end2end = np.array([[[*row, 0], [*sound, 0]]], np.float32)
    assert xywh(decoder("end2end").decode(end2end, place(whole()), FRAME)).tolist() == [[10, 10, 40, 40]]


def test_only_the_wanted_classes_and_each_suppressed_apart() -> None:
    raw = grid([[10, 10, 50, 50, 0.9, 0.0, 0.8], [11, 10, 50, 50, 0.0, 0.95, 0.0], [12, 10, 52, 50, 0.7, 0, 0.85]], 3)
    found = decoder(class_ids=(2, 0)).decode(raw, place(whole()), FRAME)
    assert [one.class_id for one in found] == [0, 2]
    assert xywh(found)[:, 0].tolist() == [10, 12]


def test_an_end_to_end_head_is_final() -> None:
    """Its boxes may overlap: it has suppressed already."""
    rows = [[10, 10, 50, 50, 0.7, 0], [11, 10, 50, 50, 0.9, 0], [10, 10, 50, 50, 0.95, 5], [0, 0, 0, 0, 0, 0]]
    found = decoder("end2end").decode(np.array([rows], np.float32), place(whole()), FRAME)
    assert xywh(found)[:, 0].tolist() == [11, 10]
    assert [one.class_id for one in found] == [0, 0]


def test_float16_heads_are_read() -> None:
    found = decoder().decode(grid([[10, 10, 50, 50, 0.75]]).astype(np.float16), place(whole()), FRAME)
    assert xywh(found).tolist() == [[10, 10, 40, 40]]


def test_each_head_is_read_whether_it_comes_in_the_array_of_the_last_or_in_another() -> None:
    reader, kept = decoder(), grid([[10, 10, 50, 50, 0.9], [100, 100, 200, 200, 0.1]])
    assert xywh(reader.decode(kept, place(whole()), FRAME)).tolist() == [[10, 10, 40, 40]]
    kept[:] = grid([[10, 10, 50, 50, 0.1], [100, 100, 200, 200, 0.9]])
    assert xywh(reader.decode(kept, place(whole()), FRAME)).tolist() == [[100, 100, 100, 100]]
    another = grid([[30, 30, 60, 60, 0.9]])
    assert xywh(reader.decode(another, place(whole()), FRAME)).tolist() == [[30, 30, 30, 30]]
    assert xywh(reader.decode(kept, place(whole()), FRAME)).tolist() == [[100, 100, 100, 100]]


def test_a_flood_is_bounded() -> None:
    places = np.arange(8400, dtype=np.float32)
    x, y = places % 100 * 6, places // 100 * 6
    raw = np.stack([x + 3, y + 3, np.full(8400, 5), np.full(8400, 5), 0.5 + places / 20000])[None].astype(np.float32)
    found = decoder().decode(raw, place(whole()), FRAME)
    assert len(found) == MAX_DETECTIONS
    assert found[0].confidence == raw[0, 4].max()
    assert (np.diff([one.confidence for one in found]) <= 0).all()


@given(
    st.integers(16, 7680),
    st.integers(16, 4320),
    st.sampled_from([320, 640]),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_boxes_anywhere_come_back_within_a_pixel(
    width: int, height: int, size: SessionSize, shares: tuple[float, float, float, float]
) -> None:
    """From every edge to every other, in any frame: through float32 input pixels and back."""
    x1, x2 = sorted(round(share * width) for share in shares[:2])
    y1, y2 = sorted(round(share * height) for share in shares[2:])
    if x1 == x2 or y1 == y2:
        return
    placement = place(whole(width, height, size))
    seen = [*placement.to_input(float(x1), float(y1)), *placement.to_input(float(x2), float(y2))]
    found = decoder().decode(grid([[*seen, 0.9]]), placement, (width, height))
    assert len(found) == 1
    x, y, w, h = xywh(found)[0].tolist()
    assert np.abs(np.subtract([x, y, x + w, y + h], [x1, y1, x2, y2])).max() <= 1
    assert x >= 0
    assert y >= 0
    assert x + w <= width
    assert y + h <= height
