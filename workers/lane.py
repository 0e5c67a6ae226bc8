"""One session with the letterbox that fills its input and the decoder that reads its output. Belongs to whoever owns
the pair: the thread that loads it, then the worker's main thread.
"""

from dataclasses import dataclass, replace

from orion.errors import ModelError
from orion.messages import DetectorSpec, SessionSize
from workers.card import ModelCard
from workers.decode import Decoder, Rules
from workers.letterbox import Letterbox
from workers.session import Session
from workers.turns import AT_ONCE, Turn


@dataclass(frozen=True, slots=True)
class Lane:
    """A loaded session and what surrounds it."""

    session: Session
    letterbox: Letterbox
    decoder: Decoder
    appearing: Rules
    """The decoder's rules, but with the threshold for who appears, which may be higher than that for who stays."""


Lanes = dict[SessionSize, Lane]
"""The 640 always, the 320 when there is one."""


def load_lanes(spec: DetectorSpec, provider: str, turn: Turn = AT_ONCE) -> Lanes:
    """Load and warm the sessions that `spec` names on one provider, each step of it in a `turn`. Raises
    ModelError.
    """
    lanes: Lanes = {640: _load(spec.model_640, 640, provider, spec, turn)}
    if spec.model_320 is not None:
        lanes[320] = _load(spec.model_320, 320, provider, spec, turn)
        _check_siblings(lanes[640].session.card, lanes[320].session.card)
    return lanes


def _load(path: str, size: SessionSize, provider: str, spec: DetectorSpec, turn: Turn) -> Lane:
    session = Session(path, size, provider, spec.threads, turn)
    least = spec.confidence if spec.confidence_keep is None else min(spec.confidence, spec.confidence_keep)
    rules = Rules(size, session.card.layout, session.card.class_ids(spec.classes), least, spec.iou)
    appearing = replace(rules, confidence=spec.confidence)
    return Lane(session, Letterbox(session.tensor), Decoder(rules), appearing)


def _check_siblings(large: ModelCard, small: ModelCard) -> None:
    """Raise ModelError unless both look for the same and, where both say what they are, are of one family and size."""
    if large.names != small.names:
        raise ModelError(f"{small.path}: expected the classes of {large.path}, found {', '.join(small.names[:5])}")
    if "unknown" not in {large.model_size, small.model_size} and large.model_name != small.model_name:
        raise ModelError(f"{small.path}: expected {large.model_name} as {large.path}, found {small.model_name}")
