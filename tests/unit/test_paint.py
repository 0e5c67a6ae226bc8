"""Results drawn on frames: the frame itself untouched, boxes and crops where they belong, whole files only."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from orion import paint
from orion.errors import ResourceError
from orion.messages import Pixels

GREY = 90


def frame(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), GREY, np.uint8)


def result(
    *boxes: tuple[int, int, int, int], inference: str = "roi", crops: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    keys = ("x", "y", "width", "height")
    detections = [{"bbox": dict(zip(keys, box, strict=True)), "confidence": 0.871} for box in boxes]
    roi_processing = None if crops is None else {"crops": crops}
    metadata = {"inference": inference, "model_selected": "320", "roi_processing": roi_processing}
    data = {"detections": detections, "count": len(boxes), "vanished": [], "metadata": metadata}
    return {"stream_id": "cam0", "frame_seq": 42, "data": data}


def near(picture: Pixels, color: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    matches: np.ndarray[Any, np.dtype[np.bool_]] = np.abs(picture.astype(int) - np.array(color)).max(axis=2) < 12
    return matches


def test_the_frame_itself_stays_as_it_is() -> None:
    original = frame(320, 240)
    picture = paint.draw(original, result((20, 60, 40, 100)))
    assert (original == GREY).all()
    assert picture.shape == original.shape
    assert (picture != GREY).any()


@pytest.mark.parametrize(("width", "height"), [(320, 240), (1280, 720), (3840, 2160), (480, 854)])
def test_a_box_is_drawn_on_its_edges_and_its_inside_left_free(width: int, height: int) -> None:
    x, y, wide, tall = width // 4, height // 3, width // 5, height // 2
    picture = paint.draw(frame(width, height), result((x, y, wide, tall)))
    green = near(picture, paint.FOUND)
    middle_row, middle_column = green[y + tall // 2], green[:, x + wide // 2]
    line = 4 * max(1, min(width, height) // 300)
    assert middle_row[x - line : x + line].any()
    assert middle_row[x + wide - line : x + wide + line].any()
    assert middle_column[y + tall - line : y + tall + line].any()
    inside = picture[y + line : y + tall - line, x + line : x + wide - line]
    assert (inside == GREY).all()


@pytest.mark.parametrize(("width", "height"), [(320, 240), (1280, 720), (3840, 2160)])
def test_letters_grow_with_the_picture(width: int, height: int) -> None:
    picture = paint.draw(frame(width, height), result())
    plate = np.flatnonzero(near(picture[:, :3], paint.CAPTION).any(axis=1))
    assert max(10, height // 45) <= len(plate) <= max(20, height // 20)


def test_held_boxes_have_another_colour() -> None:
    fresh = paint.draw(frame(640, 480), result((100, 100, 80, 200)))
    held = paint.draw(frame(640, 480), result((100, 100, 80, 200), inference="held"))
    assert near(fresh, paint.FOUND).any()
    assert not near(fresh, paint.HELD).any()
    assert near(held, paint.HELD).any()
    assert not near(held, paint.FOUND).any()


def test_kept_boxes_have_thinner_lines() -> None:
    told = result((100, 100, 80, 200))
    whole = near(paint.draw(frame(640, 480), told), paint.FOUND)[200]
    told["data"]["detections"][0]["kept"] = True
    kept = near(paint.draw(frame(640, 480), told), paint.FOUND)[200]
    assert 0 < kept.sum() < whole.sum()


@pytest.mark.parametrize(("width", "height"), [(320, 240), (1280, 720), (3840, 2160)])
def test_the_place_of_somebody_vanished_has_a_broken_line_and_a_word(width: int, height: int) -> None:
    x, y, wide, tall = width // 4, height // 3, width // 3, height // 2
    told = result()
    told["data"]["vanished"] = [{"x": x, "y": y, "width": wide, "height": tall, "since": "2026-01-02T03:04:05.6Z"}]
    red = near(paint.draw(frame(width, height), told), paint.VANISHED)
    sides = [red[y : y + tall, x], red[y : y + tall, x + wide - 1], red[y + tall - 1, x : x + wide]]
    assert all(0.3 < side.mean() < 0.9 for side in sides), [side.mean() for side in sides]
    inside = red[y + tall // 4 : y + tall - tall // 4, x + wide // 4 : x + wide - wide // 4]
    assert not inside.any()
    above = red[: y - 1, x : x + wide]
    assert above.sum() > 150, "the plate of the word is in the picture"


@pytest.mark.parametrize("place", [(-50, -50, 2**31, 2**31), (310, 230, 10**6, 10**6), (10**9, 10**9, 5, 5)])
def test_the_place_of_somebody_vanished_may_lie_outside(place: tuple[int, int, int, int]) -> None:
    told = result()
    told["data"]["vanished"] = [dict(zip(("x", "y", "width", "height"), place, strict=True))]
    assert paint.draw(frame(320, 240), told).shape == (240, 320, 3)


def test_each_crop_is_drawn_but_one_that_is_the_whole_frame() -> None:
    crops = [
        {"x": 50, "y": 100, "width": 200, "height": 200, "model": 320},
        {"x": 400, "y": 100, "width": 150, "height": 300, "model": 640},
    ]
    blue = near(paint.draw(frame(640, 480), result(crops=crops)), paint.CROP)
    for crop in crops:
        assert blue[150:250, crop["x"] - 2 : crop["x"] + 3].any()
        assert blue[150:250, crop["x"] + crop["width"] - 3 : crop["x"] + crop["width"] + 2].any()
    whole = [{"x": 0, "y": 0, "width": 640, "height": 480, "model": 640}]
    assert not near(paint.draw(frame(640, 480), result(crops=whole, inference="full")), paint.CROP).any()


@pytest.mark.parametrize(
    "box", [(0, 0, 20, 20), (300, 0, 20, 240), (310, 230, 10, 10), (0, 0, 320, 240), (0, 239, 1, 1)]
)
def test_boxes_at_the_edges_keep_their_labels_inside(box: tuple[int, int, int, int]) -> None:
    blank = paint.draw(frame(320, 240), result())
    labelled = paint.draw(frame(320, 240), result(box))
    plates = near(labelled, paint.FOUND) & ~near(blank, paint.FOUND)
    assert plates.sum() > 150, "the plate of the confidence is in the picture"


def test_saving_names_the_file_after_stream_and_frame_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "pictures" / "of-today"
    path = paint.save(folder, frame(320, 240), result((20, 60, 40, 100)))
    assert path == folder / "cam0-000042.jpg"
    assert list(folder.iterdir()) == [path]
    back = cv2.imread(str(path))
    assert back is not None
    drawn = paint.draw(frame(320, 240), result((20, 60, 40, 100)))
    assert np.abs(back.astype(int) - drawn).mean() < 3


def test_saving_again_replaces_the_picture(tmp_path: Path) -> None:
    paint.save(tmp_path, frame(320, 240), result())
    path = paint.save(tmp_path, frame(640, 480), result())
    back = cv2.imread(str(path))
    assert back is not None
    assert back.shape == (480, 640, 3)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_picture(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    with pytest.raises(ResourceError, match=r"cannot write the picture .*cam0-000042\.jpg"):
        paint.save(in_the_way, frame(320, 240), result())


def test_a_picture_that_cannot_be_put_in_place_leaves_no_half(tmp_path: Path) -> None:
    (tmp_path / "cam0-000042.jpg").mkdir()
    with pytest.raises(ResourceError, match="cannot write the picture"):
        paint.save(tmp_path, frame(320, 240), result())
    assert [path.name for path in tmp_path.iterdir()] == ["cam0-000042.jpg"]
