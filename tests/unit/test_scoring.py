import json
from pathlib import Path

import numpy as np

from benchmarks.scoring import Score, load_reference, score_frame


def boxes(*rows: tuple[int, int, int, int]) -> "np.ndarray[tuple[int, int], np.dtype[np.int32]]":
    return np.array(rows, np.int32).reshape(-1, 4)


REFERENCE = np.array([[0.0, 0, 100, 100, 0.9], [200.0, 0, 100, 100, 0.3], [400.0, 0, 100, 100, 0.5]])


def test_required_boxes_count_and_faint_ones_are_ignored() -> None:
    found = boxes((0, 0, 100, 100), (200, 0, 100, 100), (600, 0, 50, 50))
    assert score_frame(found, REFERENCE) == Score(expected=2, matched=1, found=3, extra=1)


def test_a_reference_box_is_matched_once_by_the_best() -> None:
    found = boxes((0, 0, 100, 95), (0, 0, 100, 100))
    assert score_frame(found, REFERENCE[:1]) == Score(expected=1, matched=1, found=2, extra=1)


def test_the_overlap_asked_for_is_lower_for_held_boxes() -> None:
    found = boxes((0, 0, 100, 88))
    assert score_frame(found, REFERENCE[:1]).matched == 0
    assert score_frame(found, REFERENCE[:1], held=True).matched == 1


def test_nothing_against_nothing_is_perfect() -> None:
    empty = score_frame(boxes(), np.empty((0, 5)))
    assert (empty.recall, empty.extra_share) == (1.0, 0.0)
    both = empty + score_frame(boxes((0, 0, 100, 100)), REFERENCE)
    assert (both.recall, both.extra_share) == (0.5, 0.0)


def test_a_reference_file_is_read_frame_by_frame(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"detections": [[], [[1, 2, 3, 4, 0.5]]]}))
    assert [frame.shape for frame in load_reference(tmp_path / "r.json")] == [(0, 5), (1, 5)]
