"""Executes control requests, one at a time and in order: each handler does what its command says, or hands back what is
still to be waited for. Runs in the supervisor's thread and waits nowhere.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from orion import changes, persist, reconfigure
from orion.config import Config
from orion.control import Done, Outcome, Refused, RefusedError, Request
from orion.desk import Answer, Desk
from orion.errors import ConfigError, OrionError, ResourceError
from orion.handle import Failed
from orion.messages import AttentionStats, Region
from orion.posts import StopRequested
from orion.reload import ModelChange
from orion.requests import (
    ConfigParams,
    RateParams,
    RoisParams,
    SizeParams,
    StrategyParams,
    StreamParams,
    WorkerParams,
)
from orion.results import place, timestamp
from orion.source import Source
from orion.stream import Stream
from orion.supervisor import Supervisor

_log = logging.getLogger(__name__)

_STRATEGY = ("strategy", "alpha", "velocity_threshold", "velocity_factor", "max_expansion")
_PAUSE_LIMIT_S = 30.0
_RESTART_LIMIT_S = 90.0
_ATTENTION_LIMIT_S = 5.0
_STOPPING = Refused("failed", "the instance is stopping")


@dataclass(frozen=True, slots=True)
class Later:
    """A command whose effect is still to come: `poll` gives its outcome once it is there, `late` holds if it never
    comes. `close` lets go of what is under way.
    """

    poll: Callable[[], Outcome | None]
    limit_s: float
    late: Outcome
    close: Callable[[], None] = lambda: None
    changes_models: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    request: Request
    later: Later
    deadline_s: float


class Commands:
    """What operators can do. `base` is the configuration without changes made by command, `config` the present one."""

    def __init__(
        self,
        supervisor: Supervisor,
        base: Config,
        config: Config,
        changes_file: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._base = base
        self._changes_file = changes_file
        self._supervisor = supervisor
        self._clock = clock
        self._desk = Desk(config.instance_id, frozenset(config.control.forbid), lambda: timestamp(time.time_ns()))
        self._pending: _Pending | None = None
        self._stopping = False

    # Requests and answers.

    def receive(self, payload: bytes, size: int) -> None:
        """Take a request in, and execute it if nothing is before it; after `close` nothing is executed."""
        answer = self._desk.receive(payload, size, self._clock(), self._busy)
        if answer is not None:
            self._publish(answer)
        if self._stopping:
            self._turn_away()
        else:
            self.turn()

    def turn(self) -> None:
        """Go on with what is under way and with what waits, as far as that is possible now."""
        while True:
            if self._pending is None:
                request = self._desk.next()
                if request is None:
                    return
                self._begin(request)
            elif not self._go_on(self._pending):
                return

    def next_deadline_s(self) -> float:
        """Return when `turn` must be called at the latest."""
        return float("inf") if self._pending is None else self._pending.deadline_s

    def close(self) -> None:
        """Answer everybody who still waits, and from now on who comes: nothing more will be executed."""
        self._stopping = True
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.later.close()
            self._settle(pending.request, _STOPPING)
        self._turn_away()

    def _turn_away(self) -> None:
        while (request := self._desk.next()) is not None:
            self._settle(request, _STOPPING)

    def describe(self) -> dict[str, Any]:
        """Return what `get_status` tells of the configuration."""
        return {
            "attention": self.config.attention.model_dump(mode="json"),
            "config": self.config.public(),
            "changed": changes.spelled(changes.differences(self._base, self.config)),
        }

    def _begin(self, request: Request) -> None:
        handler: Callable[[Any], Outcome | Later] = getattr(self, f"_{request.command}")
        try:
            result = handler(request.params)
        except RefusedError as error:
            result = error.refused
        except ConfigError as error:
            result = Refused("invalid_params", str(error))
        except OrionError as error:
            result = Refused("failed", str(error))
        if isinstance(result, Later):
            self._pending = _Pending(request, result, self._clock() + result.limit_s)
        else:
            self._settle(request, result)

    def _go_on(self, pending: _Pending) -> bool:
        """Look whether the pending command has its effect now; return whether it was answered."""
        outcome = pending.later.poll()
        if outcome is None and self._clock() >= pending.deadline_s:
            outcome = pending.later.late
        if outcome is None:
            return False
        self._pending = None
        pending.later.close()
        self._settle(pending.request, outcome)
        return True

    def _settle(self, request: Request, outcome: Outcome) -> None:
        what = f"refused ({outcome.code}): {outcome.error}" if isinstance(outcome, Refused) else "done"
        _log.info("command %s: %s", request.command, what)
        for answer in self._desk.settle(request, outcome, self._clock()):
            self._publish(answer)

    def _publish(self, answer: Answer) -> None:
        self._supervisor.outlet.event(answer)

    def _busy(self, request: Request) -> str:
        """Say why a request cannot even wait: a second change of models while there is one."""
        if self._pending is None or not self._pending.later.changes_models:
            return ""
        params = request.params
        touches = isinstance(params, ConfigParams) and params.config.keys() & {"models", "workers"}
        return "the models are being changed" if isinstance(params, SizeParams) or touches else ""

    # The instance as a whole.

    def _get_status(self, _: object) -> Outcome:
        return Done(self._supervisor.describe())

    def _shutdown(self, _: object) -> Outcome:
        self._supervisor.post(StopRequested("a shutdown command"))
        return Done({"shutdown_initiated": True})

    def _restart_worker(self, params: WorkerParams) -> Later:
        handle = self._supervisor.crew.handles.get(params.worker_id)
        if handle is None:
            known = ", ".join(self._supervisor.crew.handles)
            raise RefusedError("not_found", f"params.worker_id: one of {known}")
        began_s, before = self._clock(), handle.times_ready
        self._supervisor.crew.restart(handle)

        def poll() -> Outcome | None:
            if isinstance(handle.state, Failed):
                return Refused("failed", f"{handle.worker_id} could not start: {handle.state.reason}")
            if handle.times_ready == before:
                return None
            recovery_ms = round((self._clock() - began_s) * 1e3, 1)
            return Done({"restarted": True, "worker_id": handle.worker_id, "recovery_ms": recovery_ms})

        late = Refused("failed", f"{handle.worker_id} was not ready within {_RESTART_LIMIT_S:g} s")
        return Later(poll, _RESTART_LIMIT_S, late)

    # Streams.

    def _pause_inference(self, params: StreamParams) -> Later:
        streams = self._streams(params)
        for stream in streams:
            stream.pause()
        done = Done({"inference_active": False}, status="paused")
        # A frame that a worker has is still answered, before the pause is.
        return Later(lambda: None if any(stream.answering for stream in streams) else done, _PAUSE_LIMIT_S, done)

    def _resume_inference(self, params: StreamParams) -> Outcome:
        for stream in self._streams(params):
            stream.resume()
        return Done({"inference_active": True})

    def _set_inference_rate(self, params: RateParams) -> Outcome | Later:
        chosen = self._chosen(params)

        def edit(tree: changes.Tree) -> None:
            for stream in tree["streams"]:
                if stream["stream_id"] in chosen:
                    stream["rate_hz"] = params.rate_hz

        return self._go_over(changes.edited(self.config, edit), lambda _: {"inference_rate_hz": params.rate_hz})

    # Regions and attention.

    def _set_attention_rois(self, params: RoisParams) -> Outcome:
        streams = self._streams(params)
        for stream in streams:
            stream.regions = tuple(roi.region() for roi in params.rois)
        effective = any(stream.settings.attention.mode != "off" for stream in streams)
        return Done({"attention_rois_set": True, "num_rois": len(params.rois), "effective": effective})

    def _clear_attention_rois(self, params: StreamParams) -> Outcome:
        for stream in self._streams(params):
            stream.regions = ()
        return Done({"attention_rois_cleared": True})

    def _get_attention_rois(self, params: StreamParams) -> Outcome:
        streams = self._streams(params)
        regions = list(dict.fromkeys(region for stream in streams for region in stream.regions))
        names = [field.name for field in fields(streams[0].counts)]
        totals = {name: sum(getattr(s.counts, name) for s in streams) for name in names}
        return Done(
            {
                "attention_rois": [asdict(region) for region in regions],
                "num_rois": len(regions),
                "stats": totals | {"active_rois": sum(len(stream.regions) for stream in streams)},
                "streams": {s.stream_id: [asdict(region) for region in s.regions] for s in streams},
            }
        )

    def _set_auto_focus_strategy(self, params: StrategyParams) -> Outcome | Later:
        given = params.model_dump(exclude={"stream_id"}, exclude_none=True)
        return self._set_attention(params, given, {"auto_focus_strategy_updated": True, **given})

    def _get_auto_focus_strategy(self, params: StreamParams) -> Outcome:
        settings = self._streams(params)[0].settings.attention
        return Done({name: getattr(settings, name) for name in _STRATEGY})

    def _enable_auto_focus(self, params: StreamParams) -> Outcome | Later:
        return self._set_attention(params, {"mode": "auto"}, {"auto_focus_enabled": True})

    def _disable_auto_focus(self, params: StreamParams) -> Outcome | Later:
        return self._set_attention(params, {"mode": "external"}, {"auto_focus_enabled": False})

    def _clear_auto_focus_history(self, params: StreamParams) -> Outcome:
        for stream in self._streams(params):
            self._supervisor.crew.forget(stream.worker_id, stream.stream_id)
            stream.known.drop()
        return Done({"auto_focus_history_cleared": True})

    def _get_auto_focus_stats(self, params: StreamParams) -> Later:
        streams = self._streams(params)
        queries = {s.stream_id: self._supervisor.crew.describe_attention(s.worker_id, s.stream_id) for s in streams}

        def answer() -> Done:
            found = {stream_id: query.stats for stream_id, query in queries.items()}
            per_stream = {s.stream_id: _described(found[s.stream_id], s) for s in streams}
            # Of a single stream the figures stand at the top as well.
            alone = per_stream[streams[0].stream_id] if len(streams) == 1 else None
            return Done({"streams": per_stream, **({"history": [], "suggested_roi": None} | (alone or {}))})

        poll = lambda: answer() if all(query.over for query in queries.values()) else None  # noqa: E731
        return Later(poll, _ATTENTION_LIMIT_S, Refused("failed", "a worker did not answer"))

    def _set_attention(
        self, params: StreamParams, values: Mapping[str, Any], data: Mapping[str, Any]
    ) -> Outcome | Later:
        """Set attention's keys for one stream, or for the instance and thereby for all streams."""
        chosen = self._chosen(params)

        def edit(tree: changes.Tree) -> None:
            if params.stream_id is None:
                tree["attention"] |= values
            for stream in tree["streams"]:
                if stream["stream_id"] in chosen:
                    own = values if params.stream_id is not None else values.keys() & stream["attention"].keys()
                    stream["attention"] |= {key: values[key] for key in own}

        return self._go_over(changes.edited(self.config, edit), lambda _: data)

    # Models and configuration.

    def _set_model_size(self, params: SizeParams) -> Later:
        new = changes.with_size(self.config, params.size)
        previous = self._supervisor.info
        change = ModelChange(self._supervisor, new, new_files=True)

        def data(_: object) -> Mapping[str, Any]:
            return {
                "model_size": change.info.model_size,
                "model_name": change.info.model_name,
                "previous": None if previous is None else previous.model_size,
                "load_ms": round(change.load_ms, 1),
            }

        return self._change_models(new, {}, change, data)

    def _update_config(self, params: ConfigParams) -> Outcome | Later:
        new = changes.updated(self.config, params.config)
        return self._go_over(new, lambda applied: {"config_updated": True, "applied": applied})

    def _go_over(self, new: Config, data: Callable[[list[str]], Mapping[str, Any]]) -> Outcome | Later:
        """Let another configuration hold, now or once its models are in use."""
        old = self.config
        changed = changes.differences(old, new)
        sources = reconfigure.new_sources(old, new)
        if not any(changes.effect_of(path) == "models" for path in changed):
            self._keep(new)
            self._adopt(new, sources)
            return Done(data(changes.spelled(changed)))
        new_files = old.models.person_detector.size != new.models.person_detector.size
        if new_files:
            new = changes.with_size(new, new.models.person_detector.size)
        return self._change_models(new, sources, ModelChange(self._supervisor, new, new_files=new_files), data)

    def _change_models(
        self,
        new: Config,
        sources: Mapping[str, Source],
        change: ModelChange,
        data: Callable[[list[str]], Mapping[str, Any]],
    ) -> Later:
        """Wait for the new pair to be in use everywhere, and then let the whole configuration hold."""
        applied = changes.spelled(changes.differences(self.config, new))

        def poll() -> Outcome | None:
            refused = change.poll()
            if refused is not None or not change.done:
                return refused
            try:
                self._keep(new)
            except ResourceError as error:
                # The pair is in use, which cannot be taken back.
                _log.error("%s", error)
            self._adopt(new, sources)
            return Done(data(applied))

        late = Refused("failed", "the models were not changed in time")
        return Later(poll, change.LIMIT_S, late, change.close, changes_models=True)

    def _keep(self, new: Config) -> None:
        """Write the changes down if they are to outlive the run."""
        if new.persist_changes or self.config.persist_changes:
            kept = changes.part_between(self._base, new) if new.persist_changes else {}
            persist.write(self._changes_file, kept)

    def _adopt(self, new: Config, sources: Mapping[str, Source]) -> None:
        reconfigure.apply(self._supervisor, new, sources)
        self.config = new

    # Which streams are meant.

    def _streams(self, params: StreamParams) -> list[Stream]:
        return [self._supervisor.streams[stream_id] for stream_id in self._chosen(params)]

    def _chosen(self, params: StreamParams) -> list[str]:
        known = self._supervisor.streams
        if params.stream_id is None:
            return list(known)
        if params.stream_id not in known:
            raise RefusedError("not_found", f"params.stream_id: one of {', '.join(known)}")
        return [params.stream_id]


def _described(stats: AttentionStats | None, stream: Stream) -> dict[str, Any] | None:
    """Return what attention did on a stream, with counts by their name and its live recall under one name, and who is
    looked for there now.
    """
    if stats is None:
        return None
    recall = {"hits": stats.recall_hits, "total": stats.recall_total, "last_hour": stats.recall_last_hour}
    counts = {"plans": dict(stats.plans), "reasons": dict(stats.reasons)}
    regions = {"history": [asdict(region) for region in stats.history], "suggested_roi": _plain(stats.suggested_roi)}
    exits = [asdict(one) for one in stats.exits]
    now = [place(one, stream.known.since_ns[one]) for one in stream.known.vanished]
    return asdict(stats) | counts | regions | {"attention_recall": recall, "exits": exits, "vanished_now": now}


def _plain(region: Region | None) -> dict[str, float] | None:
    return None if region is None else asdict(region)
