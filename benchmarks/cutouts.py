"""People cut out of the video of a room in which one at a time stands, and the room without them. Runs in the main
thread of a benchmark or a test, which owns the pictures. Nothing is kept on disk: all is read from the test data.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.footage import frames
from benchmarks.scoring import Reference, load_reference
from orion.messages import Pixels

Mask = NDArray[np.uint8]
"""(height, width) uint8: 255 where somebody is, between at the rim."""

VIDEO = "one_by_one_person"
_EMPTY_EVERY = 6
"""Of the frames without anybody, every such one goes into the background."""
_PER_PERSON = 5
_SURE = 0.88
_MARGIN_PX = 20
"""So far from the right and lower edge nothing of them is cut off."""
_TOP_PX = 3
"""So far from the upper and left edge; above the heads the room ends."""
_SLENDER = 1.9
"""Least height over width of somebody whose legs are not cut off."""
_PAD_PX = 12
"""What is cut out is wider by this than the reference box, which hands and hair pass."""
_DIFFERENT = (18.0, 42.0)
"""Distance in colour from the background at which a pixel begins to be, and surely is, somebody's."""
_FLOOR = 45
"""Spread of the channels from which the background is the wooden floor; walls and table are grey."""
_SHADOW = (0.975, 0.3)
"""A pixel of the floor is in shadow, and nobody's, where its hue is so much the same and it is not darker than this."""
_WALL_DARKER = 16
"""Nobody is as bright as the walls: what is not darker than those by this is wall."""
_HOLE_PX = 250
"""A smaller hole is no space between limbs."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """Somebody upright: picture (H, W, 3) uint8 BGR, who `mask` (H, W) says is there, and where it came from."""

    person: int
    frame: int
    picture: Pixels
    mask: Mask
    foot: tuple[float, float]
    """Where the feet stand, in pixels of `picture`."""

    @property
    def height(self) -> float:
        """How tall they are, in pixels."""
        return float(np.flatnonzero(self.mask.max(axis=1) > 127).size)


@dataclass(frozen=True, slots=True)
class Room:
    """The room without anybody (H, W, 3) uint8 BGR, and who stood in it."""

    background: Pixels
    cutouts: tuple[Cutout, ...]


@cache
def load_room(testdata: Path) -> Room:
    """Return the room and its people from the test data's folder; the same objects for the same folder."""
    reference = load_reference(testdata / "reference" / f"{VIDEO}.yolo11n-640.json")
    empty = [number for number, boxes in enumerate(reference) if len(boxes) == 0][::_EMPTY_EVERY]
    chosen = choose(reference, (768, 432))
    wanted = {*empty, *chosen}
    pictures = {
        number: picture.copy() for number, _, picture in frames(testdata / "video" / f"{VIDEO}.mp4") if number in wanted
    }
    background: Pixels = np.median([pictures[number] for number in empty], axis=0).astype(np.uint8)
    cutouts = [cut_out(pictures[at], background, reference[at][0, :4], who, at) for at, who in chosen.items()]
    return Room(background, tuple(cutouts))


def choose(reference: Reference, frame_size: tuple[int, int]) -> dict[int, int]:
    """Return frames in which one stands in full view, surely seen, and the number of that person: a stay between
    two empty frames is one person.
    """
    limits = np.array(frame_size) - _MARGIN_PX
    chosen: dict[int, int] = {}
    stays = _stays(reference)
    for person, (first, end) in enumerate(stays):
        good = [at for at in range(first, end) if _in_full_view(reference[at], limits)]
        if good:
            places = np.linspace(0, len(good) - 1, min(_PER_PERSON, len(good))).astype(int)
            chosen |= {good[place]: person for place in places}
    return chosen


def _stays(reference: Reference) -> list[tuple[int, int]]:
    """Return first and end of every stretch of frames, long enough for a stay, in which somebody is surely there."""
    there = np.array([bool((boxes[:, 4] >= 0.4).any()) for boxes in reference])
    turns = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(int)))
    return [(int(first), int(end)) for first, end in zip(turns[::2], turns[1::2], strict=True) if end - first > 20]


def _in_full_view(boxes: NDArray[np.float64], limits: NDArray[np.int64]) -> bool:
    if len(boxes) != 1 or boxes[0, 4] < _SURE:
        return False
    near, far = boxes[0, :2], boxes[0, :2] + boxes[0, 2:4]
    return bool((near >= _TOP_PX).all() and (far <= limits).all() and boxes[0, 3] > _SLENDER * boxes[0, 2])


def cut_out(picture: Pixels, background: Pixels, box: NDArray[np.float64], person: int, frame: int) -> Cutout:
    """Return who stands in `box` (4,) x, y, width, height of `picture`, told from `background` by colour."""
    height, width = picture.shape[:2]
    left, top = np.maximum(box[:2] - _PAD_PX, 0).astype(int)
    right, bottom = np.minimum(box[:2] + box[2:] + _PAD_PX, [width, height]).astype(int)
    outside = np.ones((height, width), bool)
    outside[top:bottom, left:right] = False
    # The camera exposes anew for everybody who wears dark clothes.
    gain = picture[outside].mean(axis=0) / background[outside].mean(axis=0)
    piece = picture[top:bottom, left:right]
    expected = np.minimum(background[top:bottom, left:right] * gain, 255).astype(np.float32)
    mask = _clean(_difference(piece.astype(np.float32), expected))
    rows, columns = np.nonzero(mask > 127)
    piece, mask = (one[: rows.max() + 3, max(columns.min() - 2, 0) : columns.max() + 3] for one in (piece, mask))
    low, across = np.nonzero(mask > 127)
    soles = across[low > low.max() - 0.06 * (low.max() - low.min())]
    # Half a shoe above the lowest row, so that who falls turns about the ankles.
    foot = float(soles.min() + soles.max()) / 2, float(low.max()) - 6.0
    return Cutout(person, frame, np.ascontiguousarray(piece), np.ascontiguousarray(mask), foot)


def _difference(piece: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far (H, W) each pixel's colour is from the background's; zero for shadows and light on walls."""
    apart = np.linalg.norm(piece - expected, axis=2)
    lengths = np.linalg.norm(piece, axis=2) * np.linalg.norm(expected, axis=2)
    alike = (piece * expected).sum(axis=2) / np.maximum(lengths, 1)
    bright, bright_there = piece.mean(axis=2), expected.mean(axis=2)
    floor = expected.max(axis=2) - expected.min(axis=2) > _FLOOR
    hue, darkest = _SHADOW
    shadow = floor & (alike > hue) & (bright > darkest * bright_there)
    apart[shadow | (~floor & (bright > bright_there - _WALL_DARKER))] = 0
    blurred: NDArray[np.float32] = cv2.GaussianBlur(apart, (0, 0), 0.8).astype(np.float32)
    return blurred


def _clean(apart: NDArray[np.float32]) -> Mask:
    """Return the largest piece of what differs, without specks and small holes, soft at the rim."""
    begins, surely = _DIFFERENT
    mask = (apart > (begins + surely) / 2).astype(np.uint8)
    joined = cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(7)), cv2.MORPH_CLOSE, _disc(9))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined)
    mask = (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - mask)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < _HOLE_PX)
    mask[np.isin(labels, small)] = 1
    # The rim has the wall's light in it.
    inner = np.asarray(cv2.erode(mask, _disc(3)), np.uint8)
    return np.asarray(cv2.GaussianBlur(inner * 255, (0, 0), 1.0), np.uint8)


def _disc(size: int) -> Mask:
    disc: Mask = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.uint8)
    return disc
