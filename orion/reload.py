"""A change of models from the question which files make the pair to its use by every worker. Polled by the supervisor's
thread; the folder is searched in a short-lived child, the pair is loaded in the workers.
"""

import time
from typing import Protocol

from orion import reconfigure
from orion.config import Config
from orion.control import Refused
from orion.crew import Crew
from orion.errors import ModelError
from orion.exchange import COMMIT_LIMIT_S, PREPARE_LIMIT_S, Exchange
from orion.lookup import ModelPair, Search
from orion.messages import DetectorInfo

_SEARCH_LIMIT_S = 30.0
_MARGIN_S = 10.0


class Owner(Protocol):
    """The supervisor, as far as models are concerned."""

    crew: Crew

    def watch(self, descriptor: int) -> None:
        """Wake up when it is readable."""

    def unwatch(self, descriptor: int) -> None:
        """Stop that."""


class ModelChange:
    """One change. `new_files` says that the folder is to be searched for the pair; else the files stay and only how
    they are run changes. Once it is `done`, `info` and `load_ms` (of the slowest worker) tell of the new pair.
    """

    LIMIT_S = _SEARCH_LIMIT_S + PREPARE_LIMIT_S + COMMIT_LIMIT_S + _MARGIN_S
    """For all of it; each part has a limit of its own that is met before."""

    def __init__(self, owner: Owner, config: Config, *, new_files: bool) -> None:
        self.done = False
        self._owner = owner
        self._config = config
        self._search: Search | None = None
        self._search_until_s = time.monotonic() + _SEARCH_LIMIT_S
        self._exchange: Exchange | None = None
        model = config.models.person_detector
        if new_files:
            assert model.model_dir is not None
            self._search = Search(model.model_dir, model.size)
            owner.watch(self._search.fileno())
        else:
            self._begin(None)

    def poll(self) -> Refused | None:
        """Go on as far as possible; return why nothing was changed, if that is so."""
        if self._search is not None:
            try:
                pair = self._search.result()
            except ModelError as error:
                return Refused("not_found", str(error))
            if pair is None:
                late = time.monotonic() >= self._search_until_s
                return Refused("failed", "the model folder could not be read in time") if late else None
            self._end_search()
            if pair.model_320 is None:
                name = pair.model_640.name
                return Refused("not_found", f"models.person_detector.model_dir: {name} has no 320 model beside it")
            self._begin(pair)
        assert self._exchange is not None
        swap = self._exchange.swap
        self.done = swap.phase == "committed"
        return Refused("failed", swap.reason) if swap.phase == "aborted" else None

    @property
    def info(self) -> DetectorInfo:
        """Return what is in use now."""
        assert self._exchange is not None
        return next(iter(self._exchange.swap.loaded.values())).info

    @property
    def load_ms(self) -> float:
        """Return how long the slowest worker took to load the pair."""
        assert self._exchange is not None
        return max(loaded.load_ms for loaded in self._exchange.swap.loaded.values())

    def close(self) -> None:
        """Let go of what is under way, as long as that is possible."""
        self._end_search()
        if self._exchange is not None:
            self._exchange.swap.abort("it was given up")

    def _end_search(self) -> None:
        if self._search is not None:
            self._owner.unwatch(self._search.fileno())
            self._search.close()
            self._search = None

    def _begin(self, pair: ModelPair | None) -> None:
        crew = self._owner.crew
        spec = reconfigure.changed_spec(self._config, crew.detector, pair, len(crew.handles))
        self._exchange = crew.change_models(spec)
