"""What is found out once on a machine and kept for the next start: JSON files in the user's cache folder. Used by the
thread that loads a pair. A file that is broken or absent knows nothing, and one that cannot be written is done without.
"""

import logging
import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

_log = logging.getLogger(__name__)

_MOST = 32
"""Entries of a file; the oldest go first."""

T = TypeVar("T")


class Cache(Generic[T]):
    """The values of one kind, by keys that say all that a value depends on."""

    def __init__(self, name: str, kind: type[T]) -> None:
        self._path = _folder() / "orion" / f"{name}.json"
        self._decoder = msgspec.json.Decoder(dict[str, kind])  # type: ignore[valid-type]

    def recall(self, key: str) -> T | None:
        """Return the value that was remembered under `key`; None where there is none."""
        return self._read().get(key)

    def remember(self, key: str, value: T) -> None:
        """Keep `value` under `key`."""
        known = [(other, kept) for other, kept in self._read().items() if other != key]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(f".{os.getpid()}")
            beside.write_bytes(msgspec.json.encode(dict([*known, (key, value)][-_MOST:])))
            beside.replace(self._path)
        except OSError as error:
            _log.info("%s is not kept for the next start: %s", self._path.name, error)

    def _read(self) -> dict[str, T]:
        try:
            known: dict[str, T] = self._decoder.decode(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError, ValueError):
            return {}
        return known


def _folder() -> Path:
    """Return where the user's caches lie; a place where no file can be for a user without a home."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named) if named else Path.home() / ".cache"
    except RuntimeError:
        # A container may run as a user whom its system does not know.
        return Path(os.devnull)
