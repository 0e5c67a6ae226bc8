"""What a model must answer to the known pictures: what a plain run of its file on `cpu` answers, found out once for a
machine. Runs in the thread that loads a pair and, from memory, in the worker's main thread.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from orion.messages import Crop, SessionSize
from workers import runtime
from workers.cache import Cache
from workers.check_image import KnownPicture, known_pictures
from workers.decode import Decoder, Rules
from workers.lane import Lane
from workers.letterbox import Letterbox
from workers.memory import trim_memory
from workers.nms import Box

AGREEING_SCORE = 0.02
"""How much two scores of the same box may differ."""
_KEPT = 100
"""Boxes of a picture among which one is looked for: a session may rank those of one person otherwise."""

pictures = cache(known_pictures)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a plain run on `cpu` answers to the known pictures: the best boxes of each, in pixels of the input, and from
    which score they are compared. That is the detection threshold; where a drawn person does not reach it, there is
    none, since two answers without a box would agree whether anybody sees or not.
    """

    answers: tuple[tuple[Box, ...], ...]
    confidence: float
    sees: bool
    """Whether a person is found in each drawn picture; True where none is looked for."""

    @property
    def tells(self) -> bool:
        """Whether there is anything in the answers to the drawn pictures, however faint."""
        return all(boxes for boxes, picture in zip(self.answers, pictures(), strict=True) if picture.person)


_known: dict[tuple[str, Rules], Expected] = {}
"""By the file's SHA-256. Two threads may at worst find out the same."""


def expect(lane: Lane, *, anew: bool = False) -> Expected:
    """Return what the lane's file must answer: from memory, from the cache of this machine, or by a plain run, each
    step of which is made in a turn; `anew` by that in any case. Raises ModelError.
    """
    key = (lane.session.sha256, lane.appearing)
    known = None if anew else _known.get(key)
    if known is None:
        remembered = Cache("expected", Expected)
        name = f"{key} {runtime.build()} {runtime.processor()} {_pictures_sha256()}"
        known = None if anew else remembered.recall(name)
        if known is None or len(known.answers) != len(pictures()):
            known = _find_out(lane)
            remembered.remember(name, known)
        _known[key] = known
    return known


def best_boxes(head: NDArray[np.floating], rules: Rules, confidence: float) -> tuple[Box, ...]:
    """Return the boxes of a head that can matter where those from `confidence` on are compared, best first."""
    least = max(0.0, confidence - AGREEING_SCORE)
    return tuple(Decoder(replace(rules, confidence=least)).candidates(head)[:_KEPT])


def whole(picture: KnownPicture, size: SessionSize) -> Crop:
    """Return the crop that is the whole picture."""
    height, width = picture.pixels.shape[:2]
    return Crop(0, 0, width, height, size)


@cache
def _pictures_sha256() -> str:
    return hashlib.sha256(b"".join(picture.pixels.tobytes() for picture in pictures())).hexdigest()


def _find_out(lane: Lane) -> Expected:
    rules, names = lane.appearing, lane.session.card.names
    heads = list(lane.session.plain_heads(_tensors(lane.session.tensor, rules.size)))
    trim_memory()
    answers = [best_boxes(head, rules, rules.confidence) for head in heads]
    seen = [
        {names[box.class_id] for box in boxes if box.confidence >= rules.confidence}
        for boxes, picture in zip(answers, pictures(), strict=True)
        if picture.person
    ]
    confidence = rules.confidence
    if not all(seen):
        confidence = 0.0
        answers = [best_boxes(head, rules, confidence) for head in heads]
    sought = "person" in {names[class_id] for class_id in rules.class_ids}
    return Expected(tuple(answers), confidence, not sought or all("person" in found for found in seen))


def _tensors(like: NDArray[np.uint8], size: SessionSize) -> list[NDArray[np.uint8]]:
    """Return the known pictures as inputs of their own, none of which a session has."""
    filled = []
    for picture in pictures():
        tensor = np.empty_like(like)
        Letterbox(tensor).fill(picture.pixels, whole(picture, size))
        filled.append(tensor)
    return filled
