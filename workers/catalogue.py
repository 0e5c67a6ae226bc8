"""What a folder of models holds and which two files make a pair. Names propose, contents decide. Runs in short-lived
processes (`orion models`, `doctor`, the start of `run`) and in the drop-in worker; never in the supervisor.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orion.errors import ModelError
from orion.messages import DetectorSpec, SessionInfo, SessionSize
from workers.card import ModelCard
from workers.choice import load_seeing
from workers.session import describe, sha256


@dataclass(frozen=True, slots=True)
class Entry:
    """One model file of a folder: what it is, or why it cannot be used."""

    path: str
    sha256: str
    card: ModelCard | None
    error: str | None


@dataclass(frozen=True, slots=True)
class PairPaths:
    """The files that a detector loads; `model_320` None means that the 640 runs alone."""

    model_640: str
    model_320: str | None
    model_name: str
    model_size: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a family of a folder is a complete pair that runs: what each session took, or what is wrong."""

    model_name: str
    files: tuple[str, ...]
    sessions: tuple[SessionInfo, ...]
    problem: str | None


def inspect(path: Path) -> ModelCard:
    """Return what the file is. Raises ModelError with what was expected and what was found."""
    return describe(str(path))


def list_folder(folder: Path) -> list[Entry]:
    """Return every model file of `folder`, by name; a broken one is listed with its error. Raises ModelError when there
    is no such folder.
    """
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder}: expected a folder of models, found none") from None
    except OSError as error:
        raise ModelError(f"{folder}: the folder cannot be read: {error.strerror}") from error
    return [_entry(path) for path in paths if path.suffix == ".onnx" and not path.name.startswith(".")]


def resolve(folder: Path, size: str) -> PairPaths:
    """Return the pair of that size (n, s, m, l, x) in `folder`.

    Raises ModelError when there is none, or when more than one file or family could be meant; it lists them.
    """
    entries = list_folder(folder)
    cards = [entry.card for entry in entries if entry.card is not None and entry.card.model_size == size]
    families = _families(cards)
    if not families:
        raise ModelError(f"{folder}: expected a model of size {size}, found {_summary(entries)}")
    if len(families) > 1:
        raise ModelError(f"{folder}: expected one family of size {size}, found {_names(cards)}; name the pair by path")
    try:
        return _pair(folder, cards)
    except ModelError as error:
        # One of these may be what is missed.
        broken = "; ".join(str(entry.error) for entry in entries if entry.card is None)
        raise ModelError(f"{error}; unusable: {broken}" if broken else str(error)) from None


def verify(folder: Path) -> list[Verdict]:
    """Load every pair of `folder` and run each session once; return what came of it, family by family."""
    entries = list_folder(folder)
    broken = [Verdict("", (entry.path,), (), entry.error) for entry in entries if entry.error is not None]
    families = _families(entry.card for entry in entries if entry.card is not None)
    return [_verdict(folder, cards) for cards in families] + broken


def _entry(path: Path) -> Entry:
    digest = ""
    try:
        digest = sha256(str(path))
        return Entry(str(path), digest, inspect(path), None)
    except (ModelError, OSError) as error:
        return Entry(str(path), digest, None, str(error))


def _families(cards: Iterable[ModelCard]) -> list[list[ModelCard]]:
    """Group by what must be equal in a pair; groups and members keep the order of the file names."""
    groups: dict[tuple[str, tuple[str, ...]], list[ModelCard]] = {}
    for card in cards:
        groups.setdefault((card.model_name, card.names), []).append(card)
    return list(groups.values())


def _pair(folder: Path, family: list[ModelCard]) -> PairPaths:
    """Return the only pair that `family` can make, or raise ModelError."""
    large = _only(folder, family, 640)
    if large is None:
        raise ModelError(f"{folder}: expected a file with input 640x640, found {_names(family)}")
    small = _only(folder, family, 320)
    return PairPaths(large.path, small.path if small else None, large.model_name, large.model_size)


def _only(folder: Path, family: list[ModelCard], side: SessionSize) -> ModelCard | None:
    """Return the family's file for that session: one of just that input size, else one whose input size is open."""
    for accepted in (side, None):
        fitting = [card for card in family if card.side == accepted]
        if len(fitting) > 1:
            what = f"input {side}x{side}" if accepted else "open input size"
            raise ModelError(f"{folder}: expected one file with {what}, found {_names(fitting)}; name the pair by path")
        if fitting:
            return fitting[0]
    return None


def _names(cards: Iterable[ModelCard]) -> str:
    return ", ".join(f"{Path(card.path).name} ({card.model_name}, {card.side or 'any'})" for card in cards)


def _summary(entries: list[Entry]) -> str:
    cards = [entry.card for entry in entries if entry.card is not None]
    broken = [f"{Path(entry.path).name} (unusable)" for entry in entries if entry.card is None]
    return ", ".join([part for part in (_names(cards), *broken) if part]) or "no .onnx file"


def _verdict(folder: Path, family: list[ModelCard]) -> Verdict:
    files = tuple(card.path for card in family)
    name, names = family[0].model_name, family[0].names
    try:
        pair = _pair(folder, family)
        sought = ("person",) if "person" in names else names[:1]
        lanes = load_seeing(DetectorSpec(pair.model_640, pair.model_320, 0.5, 0.45, sought, "cpu", threads=1), "cpu")
    except ModelError as error:
        return Verdict(name, files, (), str(error))
    sessions = tuple(lane.session.info for lane in lanes.values())
    problems = [] if pair.model_320 else ["no file with input 320x320: the 640 session runs alone"]
    problems += [f"{one.size} sees nobody in the drawn pictures" for one in sessions if not one.sees]
    return Verdict(name, files, sessions, "; ".join(problems) or None)
