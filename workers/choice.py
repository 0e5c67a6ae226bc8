"""Which provider runs a pair: the one that was asked for or, for `auto`, the fastest installed one whose boxes agree
with those of `cpu`. Runs where pairs are loaded. The choice of `auto` is remembered in the user's cache folder, since
measuring it takes as long as loading every provider.
"""

import contextlib
import json
import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from orion.errors import ModelError
from orion.messages import DetectorSpec
from workers import check_image
from workers.lane import Lanes, load_lanes
from workers.nms import Box, overlap
from workers.providers import PROVIDERS
from workers.session import installed_providers, runtime_version, sha256, why_absent
from workers.turns import AT_ONCE, Turn

_log = logging.getLogger(__name__)

AGREEING_IOU = 0.95
AGREEING_SCORE = 0.02
_COMPARED = 5


def load_chosen(spec: DetectorSpec, turn: Turn = AT_ONCE) -> Lanes:
    """Load the pair on the provider that `spec` asks for, each step of it in a `turn`. One that fails gives way to
    `cpu` with one warning.

    Raises ModelError when `cpu` cannot run the pair either, or when there is no provider of that name.
    """
    if spec.provider == "auto":
        return _load_fastest(spec, turn)
    if spec.provider not in PROVIDERS:
        raise ModelError(f"expected a provider among auto, {', '.join(PROVIDERS)}, found {spec.provider!r}")
    reason = why_absent(spec.provider)
    if reason is None:
        try:
            return load_lanes(spec, spec.provider, turn)
        except ModelError as error:
            if spec.provider == "cpu":
                raise
            reason = f"{spec.provider} failed at load: {error}"
    return load_on_cpu(spec, reason, turn)


def load_on_cpu(spec: DetectorSpec, reason: str, turn: Turn = AT_ONCE) -> Lanes:
    """Load the pair on `cpu`, with a warning, in place of a provider that cannot be used for that reason. Raises
    ModelError.
    """
    _log.warning("provider %s; going on with cpu", reason)
    lanes = load_lanes(spec, "cpu", turn)
    for lane in lanes.values():
        lane.session.fallback = reason
    return lanes


def agree(expected: Sequence[Box], found: Sequence[Box]) -> bool:
    """Return whether each of the best boxes in `expected` has one in `found` at IoU 0.95 with a score within 0.02;
    both come best first, and without any box there is nothing to agree on.
    """
    return len(expected) > 0 and all(any(_alike(box, other) for other in found) for box in expected[:_COMPARED])


def _alike(one: Box, other: Box) -> bool:
    return (
        one.class_id == other.class_id
        and abs(one.confidence - other.confidence) <= AGREEING_SCORE
        and overlap(one, other) >= AGREEING_IOU
    )


def _load_fastest(spec: DetectorSpec, turn: Turn) -> Lanes:
    names = installed_providers()
    if names == ("cpu",):
        return load_lanes(spec, "cpu", turn)
    memory, key = _Memory(), _key(spec, names)
    remembered = memory.recall(key)
    if remembered in names:
        try:
            return load_lanes(spec, remembered, turn)
        except ModelError as error:
            _log.warning("provider %s is not taken: %s", remembered, error)
    best_name, best = _fastest(spec, names[:-1], turn)
    memory.remember(key, best_name)
    return best


def _fastest(spec: DetectorSpec, names: Sequence[str], turn: Turn) -> tuple[str, Lanes]:
    """Load every provider of `names` in turn; return the fastest whose boxes agree with those of `cpu`, or `cpu`."""
    best_name, best = "cpu", load_lanes(spec, "cpu", turn)
    best_ms = best[640].fastest_ms()
    picture = check_image.draw()
    expected = {size: lane.candidates(picture) for size, lane in best.items()}
    for name in names:
        try:
            lanes = load_lanes(spec, name, turn)
            agrees = all(agree(expected[size], lane.candidates(picture)) for size, lane in lanes.items())
            took_ms = lanes[640].fastest_ms()
        except ModelError as error:
            _log.warning("provider %s is not taken: %s", name, error)
            continue
        if not agrees:
            _log.info("provider %s is not taken: its boxes are not those of cpu", name)
            continue
        _log.info("provider %s takes %.1f ms where %s takes %.1f", name, took_ms, best_name, best_ms)
        if took_ms < best_ms:
            best_name, best, best_ms = name, lanes, took_ms
    return best_name, best


def _key(spec: DetectorSpec, names: tuple[str, ...]) -> str:
    files = [sha256(path)[:16] for path in (spec.model_640, spec.model_320) if path is not None]
    return " ".join([*files, str(spec.threads), runtime_version(), _processor(), *names])


def _processor() -> str:
    """Return the processor's name, since a cache folder may serve several machines."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


class _Memory:
    """What `auto` chose before: a small JSON file in the user's cache folder. A broken or absent one knows nothing."""

    def __init__(self) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._path = Path(cache) / "orion" / "providers.json"

    def recall(self, key: str) -> str | None:
        choice = self._read().get(key)
        return choice if isinstance(choice, str) else None

    def remember(self, key: str, choice: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(self._read() | {key: choice}))
            beside.replace(self._path)
        except OSError as error:
            _log.warning("the choice of provider cannot be remembered: %s", error)

    def _read(self) -> dict[str, object]:
        try:
            known = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
