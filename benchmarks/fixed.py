"""What detectors that stand in for the real one have in common: one model for good, and nothing kept for a stream."""

import math
from typing import NoReturn

from orion.errors import ModelError
from orion.messages import DetectorSpec


class FixedDetector:
    """The part of a worker's detector that has nothing to do when models do not change."""

    self_test_wait_s = math.inf

    def forget(self, stream_id: str) -> None:
        """Nothing is kept."""

    def attention_stats(self, stream_id: str) -> None:
        """There is no attention."""

    def self_test(self) -> None:
        """Never called, since it is never due."""

    def load(self, spec: DetectorSpec) -> NoReturn:
        """Refuse: this detector has no other model."""
        raise ModelError(f"{type(self).__name__} cannot load {spec.model_640}")

    def swap(self, pair: object) -> None:
        """Never called, since `load` gives no pair."""

    def close(self) -> None:
        """Nothing is open."""
