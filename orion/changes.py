"""What a command may change of the configuration, and what a change takes: the table of all keys, and from a part of a
configuration to the whole new one or the refusal. Pure; used by the supervisor's thread.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from orion import settings
from orion import uri as uris
from orion.config import Config, source_kind
from orion.control import RefusedError
from orion.errors import ConfigError

Effect = Literal["live", "models", "restart", "forbidden"]
"""What a change of a key takes: nothing; a change of models, which loses no frame either; a restart of the instance; or
it cannot be done by command."""
Path_ = tuple[str, ...]
Tree = dict[str, Any]

EFFECTS: Mapping[str, Effect] = {
    "instance_id": "restart",
    "room_id": "restart",
    "shutdown_timeout_s": "restart",
    "streams": "live",
    "models.person_detector": "models",
    "models.person_detector.model_dir": "forbidden",
    "models.person_detector.model_path": "forbidden",
    "models.person_detector.model_path_320": "forbidden",
    "attention": "live",
    "workers.count": "restart",
    "workers.threads": "models",
    "workers.frame_deadline_s": "live",
    "workers.memory_limit_mb": "restart",
    "workers.start_deadline_s": "restart",
    "workers.restart": "restart",
    "ring": "restart",
    "control": "forbidden",
    "persist_changes": "live",
    "mqtt": "forbidden",
    "telemetry_s": "restart",
    "log": "restart",
    "run": "restart",
    "run.results": "forbidden",
    "run.save_frames": "forbidden",
}
"""By key; one that is not here goes by the longest one that it lies under."""

_SECRET: Path_ = ("mqtt", "password")


def effect_of(path: Path_) -> Effect:
    """Return what a change of the key at `path` takes."""
    for end in range(len(path), 0, -1):
        effect = EFFECTS.get(".".join(path[:end]))
        if effect is not None:
            return effect
    return "restart"


def tree_of(config: Config) -> Tree:
    """Return a configuration as plain values, without the password but with the sources as they are."""
    return config.model_dump(mode="json")


def differences(old: Config, new: Config) -> list[Path_]:
    """Return the keys that differ, streams by their id instead of their place."""
    return sorted(_differences(_by_id(tree_of(old)), _by_id(tree_of(new)), ()))


def spelled(paths: list[Path_]) -> list[str]:
    """Return keys as operators read them, `streams.cam0.rate_hz`."""
    return [".".join(path) for path in paths]


def updated(config: Config, part: Mapping[str, Any]) -> Config:
    """Return the configuration with `part` in force, which has the form of the file. Raises RefusedError.

    `streams` says which streams there are from now on; of one that is known, keys that are absent stay as they are.
    """
    tree = tree_of(config)
    _check_forbidden(tree, part)
    new = checked(config, _merged(tree, part))
    changed = differences(config, new)
    if needing := [path for path in changed if effect_of(path) == "restart"]:
        keys = spelled(needing)
        raise RefusedError("invalid_params", f"config.{keys[0]}: needs a restart", {"restart_required": keys})
    _check_sources(config, new)
    return new


def edited(config: Config, edit: Callable[[Tree], None]) -> Config:
    """Return the configuration as `edit` leaves its tree. Raises RefusedError when that is none."""
    tree = tree_of(config)
    edit(tree)
    return checked(config, tree)


def with_size(config: Config, size: str) -> Config:
    """Return the configuration with the pair of this size, looked up in the folder that the present one is from.

    Raises RefusedError when that is the embedded model's, which has one size.
    """
    model = config.models.person_detector
    folder = model.model_dir
    if folder is None and model.model_path is not None:
        folder = model.model_path.parent
    if folder is None:
        raise RefusedError("not_found", "size: the embedded model has only one, and no model_dir is set")
    wanted = {"model_dir": str(folder), "size": size, "model_path": None, "model_path_320": None}
    return edited(config, lambda tree: tree["models"]["person_detector"].update(wanted))


def checked(config: Config, tree: Tree) -> Config:
    """Return the configuration that `tree` says, with the secrets of the present one. Raises RefusedError."""
    try:
        new = settings.check(tree)
    except ConfigError as error:
        raise RefusedError("invalid_params", "; ".join(f"config.{problem}" for problem in error.problems)) from None
    return new.model_copy(update={"mqtt": config.mqtt})


def part_between(old: Config, new: Config) -> Tree:
    """Return what makes `new` of `old`, in the form of a configuration, but for `streams`: by their id, None for one
    that is no more, all keys of one that is new.
    """
    part: Tree = {}
    tree = _by_id(tree_of(new))
    for path in differences(old, new):
        place, source = part, tree
        for key in path[:-1]:
            place, source = place.setdefault(key, {}), source[key]
        place[path[-1]] = source.get(path[-1])
    return part


def _merged(tree: Any, part: Any) -> Any:
    if not isinstance(part, Mapping) or not isinstance(tree, dict):
        return part
    merged = dict(tree)
    for key, value in part.items():
        merged[key] = _merged_streams(tree[key], value) if key == "streams" else _merged(tree.get(key), value)
    return merged


def _merged_streams(present: list[Tree], wanted: Any) -> Any:
    if not isinstance(wanted, list):
        return wanted
    known = {stream["stream_id"]: stream for stream in present}
    return [_merged_stream(known, stream) for stream in wanted]


def _merged_stream(known: Mapping[str, Tree], wanted: Any) -> Any:
    stream_id = wanted.get("stream_id") if isinstance(wanted, dict) else None
    before = known.get(stream_id) if isinstance(stream_id, str) else None
    if before is None:
        return wanted
    merged = {**before, **wanted}
    if isinstance(wanted.get("attention"), dict):
        merged["attention"] = {**before["attention"], **wanted["attention"]}
    if merged["source"] == uris.mask(before["source"]):
        # As `get_status` shows it: the address is meant to stay.
        merged["source"] = before["source"]
    return merged


def _check_forbidden(tree: Tree, part: Mapping[str, Any]) -> None:
    for path, value in _leaves(part, ()):
        if effect_of(path) == "forbidden" and (path == _SECRET or _at(tree, path) != value):
            raise RefusedError("forbidden", f"config.{uris.mask('.'.join(path))[:200]}: cannot be set by command")


def _check_sources(old: Config, new: Config) -> None:
    """Let commands set only sources that reach nothing else of this machine."""
    present = {stream.stream_id: stream.source for stream in old.streams}
    for index, stream in enumerate(new.streams):
        kind = source_kind(stream.source)
        if present.get(stream.stream_id) == stream.source or kind in {"demo", "network"}:
            continue
        where = f"config.streams.{index}.source"
        if kind == "device":
            raise RefusedError("forbidden", f"{where}: a device cannot be set by command")
        try:
            file = Path(stream.source).resolve()
            allowed = any(file.is_relative_to(folder.resolve()) for folder in old.control.source_dirs)
            there = allowed and file.is_file()
        except (OSError, ValueError, RuntimeError):
            # A name that no file can have, or links in a circle.
            allowed = there = False
        if not allowed:
            raise RefusedError("forbidden", f"{where}: a file must lie in one of control.source_dirs")
        if not there:
            raise RefusedError("not_found", f"{where}: no such file")


def _by_id(tree: Tree) -> Tree:
    return tree | {"streams": {stream["stream_id"]: stream for stream in tree["streams"]}}


def _differences(old: Any, new: Any, path: Path_) -> Iterator[Path_]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            if key not in old or key not in new:
                yield (*path, key)
            else:
                yield from _differences(old[key], new[key], (*path, key))
    elif json.dumps(old) != json.dumps(new):
        yield path


def _leaves(part: Any, path: Path_) -> Iterator[tuple[Path_, Any]]:
    if isinstance(part, Mapping) and part:
        for key, value in part.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, part


def _at(tree: Any, path: Path_) -> Any:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return _ABSENT
        tree = tree[key]
    return tree


_ABSENT = object()
