"""Which provider runs a pair: the one that was asked for or, for `auto`, the fastest installed one; of either, only one
that answers the known pictures as `cpu` does. Runs where pairs are loaded. The choice of `auto` is remembered in the
user's cache folder, since measuring it takes as long as loading every provider.
"""

import logging
from collections.abc import Sequence

from orion.errors import ModelError
from orion.messages import DetectorSpec
from workers import runtime
from workers.cache import Cache
from workers.lane import Lanes, load_lanes
from workers.providers import PROVIDERS
from workers.runtime import installed_providers, why_absent
from workers.self_test import find_fault
from workers.session import ProviderError, sha256
from workers.turns import AT_ONCE, Turn

_log = logging.getLogger(__name__)


class BlindError(ModelError):
    """A provider runs a pair, but does not answer the known pictures as a plain run on `cpu` does."""


def load_chosen(spec: DetectorSpec, turn: Turn = AT_ONCE) -> Lanes:
    """Load the pair on the provider that `spec` asks for, each step of it in a `turn`. One that fails gives way to
    `cpu` with one warning, one that does not see with an error.

    Raises ModelError when `cpu` cannot run the pair either, or when there is no provider of that name.
    """
    if spec.provider == "auto":
        return _load_fastest(spec, turn)
    if spec.provider not in PROVIDERS:
        raise ModelError(f"expected a provider among auto, {', '.join(PROVIDERS)}, found {spec.provider!r}")
    reason, level = why_absent(spec.provider), logging.WARNING
    if reason is None:
        try:
            return load_seeing(spec, spec.provider, turn)
        except ModelError as error:
            if spec.provider == "cpu":
                raise
            names_it = isinstance(error, BlindError | ProviderError)
            reason = str(error) if names_it else f"{spec.provider} failed at load: {error}"
            level = logging.ERROR if isinstance(error, BlindError) else logging.WARNING
    return load_on_cpu(spec, reason, turn, level)


def load_on_cpu(spec: DetectorSpec, reason: str, turn: Turn = AT_ONCE, level: int = logging.WARNING) -> Lanes:
    """Load the pair on `cpu`, and log so, in place of a provider that cannot be used for that reason. Raises
    ModelError.
    """
    _log.log(level, "provider %s; going on with cpu", reason)
    lanes = load_seeing(spec, "cpu", turn)
    for lane in lanes.values():
        lane.session.fallback = reason
    return lanes


def load_seeing(spec: DetectorSpec, provider: str, turn: Turn = AT_ONCE) -> Lanes:
    """Load the pair on one provider and try the known pictures, each step in a `turn`. Raises BlindError where they are
    not answered as they must be, and ModelError.
    """
    lanes = load_lanes(spec, provider, turn)
    fault = find_fault(lanes)
    if fault is not None:
        raise BlindError(f"{provider} does not see the known pictures: {fault}")
    return lanes


def _load_fastest(spec: DetectorSpec, turn: Turn) -> Lanes:
    names = installed_providers()
    if names == ("cpu",):
        return load_seeing(spec, "cpu", turn)
    memory, key = Cache("providers", str), _key(spec, names)
    remembered = memory.recall(key)
    if remembered in names:
        try:
            return load_seeing(spec, remembered, turn)
        except ModelError as error:
            _log.warning("provider %s is not taken: %s", remembered, error)
    best_name, best = _fastest(spec, names[:-1], turn)
    memory.remember(key, best_name)
    return best


def _fastest(spec: DetectorSpec, names: Sequence[str], turn: Turn) -> tuple[str, Lanes]:
    """Load every provider of `names` in turn; return the fastest that sees, or `cpu`."""
    best_name, best = "cpu", load_seeing(spec, "cpu", turn)
    best_ms = best[640].session.fastest_ms
    for name in names:
        try:
            lanes = load_seeing(spec, name, turn)
        except ModelError as error:
            _log.warning("provider %s is not taken: %s", name, error)
            continue
        took_ms = lanes[640].session.fastest_ms
        _log.info("provider %s takes %.1f ms where %s takes %.1f", name, took_ms, best_name, best_ms)
        if took_ms < best_ms:
            best_name, best, best_ms = name, lanes, took_ms
    return best_name, best


def _key(spec: DetectorSpec, names: tuple[str, ...]) -> str:
    """Return all that a choice depends on, so that one made under other conditions is void."""
    files = [sha256(path)[:16] for path in (spec.model_640, spec.model_320) if path is not None]
    return " ".join([*files, str(spec.threads), runtime.build(), runtime.processor(), *names])
