"""Where the configuration comes from: defaults, file, environment and command line, merged in this order and checked
as a whole, so that every problem is reported at once, under its path and with the place that the value came from. Runs
once at the start of a command, in its main thread.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orion import keys, persist, yaml_file
from orion import uri as uris
from orion.config import Config, PersonDetectorConfig, same_ids, source_kind
from orion.errors import ConfigError, Problem, ResourceError
from orion.paths import why_absent
from orion.yaml_file import KeyPath

DEFAULT_FILE = "orion.yaml"
PREFIX = "ORION_"
FOREIGN_VARIABLES = frozenset({"ORION_TESTDATA"})
"""Variables with our prefix that are no settings."""

_DETECTOR = ("models", "person_detector")
OPTIONS: Mapping[str, KeyPath] = {
    "model_dir": (*_DETECTOR, "model_dir"),
    "model_size": (*_DETECTOR, "size"),
    "model": (*_DETECTOR, "model_path"),
    "model_320": (*_DETECTOR, "model_path_320"),
    "confidence": (*_DETECTOR, "confidence"),
    "every_frame": ("run", "every_frame"),
    "frames": ("run", "frames"),
    "workers": ("workers", "count"),
    "threads": ("workers", "threads"),
    "provider": (*_DETECTOR, "provider"),
    "broker": ("mqtt", "broker"),
    "results": ("run", "results"),
    "save_frames": ("run", "save_frames"),
    "instance_id": ("instance_id",),
}
"""Command-line options by their argparse name, and the key that each sets. `config`, `source`, `rate` and `attention`
are not here: they set more than one key, or none."""

_DEFAULT_SIZE = PersonDetectorConfig().size

_FILES: Sequence[tuple[str, ...]] = (
    (*_DETECTOR, "model_dir"),
    (*_DETECTOR, "model_path"),
    (*_DETECTOR, "model_path_320"),
    ("mqtt", "password_file"),
    ("mqtt", "tls", "ca"),
    ("mqtt", "tls", "cert"),
    ("mqtt", "tls", "key"),
    ("control", "source_dirs", "*"),
)
"""Keys whose value must exist, as a file or a folder."""
_WRITTEN: Sequence[tuple[str, ...]] = (("run", "results"), ("run", "save_frames"))
"""Keys whose value is written to, so that the folder around it must exist."""

_TYPE_ERRORS = re.compile(r".*_type|literal_error|none_required|.*_parsing")
_SIZE_ERRORS = frozenset({"too_short", "too_long", "string_too_short", "string_too_long"})
_LEAD = re.compile(r"^(Input should be|\w+ should) | after validation.*")
_PLAIN_WORDS: Mapping[str, str] = {
    "a valid dictionary or object to extract fields from": "keys and values",
    "an object": "keys and values",
    "a valid array": "a list",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
}
_PASSWORD: KeyPath = ("mqtt", "password")


@dataclass(slots=True)
class _Draft:
    """The merged tree while it grows, where each value came from, and what was wrong on the way."""

    cwd: Path
    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, path: KeyPath, message: str) -> None:
        """Note a problem, with the place that the value at `path` came from."""
        origin = next((self.origins[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.origins), None)
        problem = Problem(uris.mask(".".join(map(str, path))), f"{message} ({origin})" if origin else message)
        # What is wrong with a value is said once: what is not even text, say, is not missing too.
        if all(known.path != problem.path for known in self.problems):
            self.problems.append(problem)

    def assign(self, path: KeyPath, value: Any, origin: str) -> None:
        """Set one value; what lies under it before is replaced."""
        path = tuple(int(key) if isinstance(key, str) and key.isdecimal() else key for key in path)
        self.origins[path] = origin
        place: Any = self.tree
        for depth, key in enumerate(path):
            if not _has_room_for(place, key):
                self.complain(path, f"there is no {'.'.join(map(str, path[: depth + 1]))} that could be set")
                return
            if depth == len(path) - 1:
                _put(place, key, value)
            elif isinstance(place, dict):
                place = place.setdefault(key, {})
            else:
                if key == len(place):
                    place.append({})
                place = place[key]

    def assign_text(self, path: KeyPath, text: str, origin: str) -> None:
        """Set one value that was written as text outside the file."""
        try:
            text.encode()
        except UnicodeEncodeError:
            self.origins[path] = origin
            self.complain(path, "is not UTF-8")
            return
        self.assign(path, keys.value_of(path, text), origin)


Present = Literal["all", "own", "broker"]
"""Which of the files that a configuration names must be there: all; all but sources and models, for who looks for those
by itself; or those for the broker alone, for who only speaks with the instance, which may be on another machine."""


def load(cli: Mapping[str, Any], environ: Mapping[str, str], cwd: Path, present: Present = "all") -> Config:
    """Return the configuration that file, environment and command line make together.

    `cli` has options by their argparse name (`OPTIONS`, and `config`, `source`, `rate`, `attention`), absent or None
    where not given; relative paths are meant from `cwd`. Raises ConfigError with every problem found, ResourceError
    when the password's file is there but cannot be read.
    """
    return _load(cli, environ, cwd, {}, "", present)


def load_changed(
    config: Config, cli: Mapping[str, Any], environ: Mapping[str, str], cwd: Path, present: Present = "all"
) -> Config:
    """Return `config`, as `load` gave it, with the changes made by command that it keeps: they hold over all but what
    the environment and the command line say. Raises what `load` does.
    """
    file = persist.changes_file(config.instance_id, environ)
    changes = persist.read(file)
    kept = changes.get("persist_changes", config.persist_changes)
    return _load(cli, environ, cwd, changes, str(file), present) if changes and kept else config


def _load(
    cli: Mapping[str, Any],
    environ: Mapping[str, str],
    cwd: Path,
    changes: Mapping[str, Any],
    changes_file: str,
    present: Present,
) -> Config:
    draft = _Draft(cwd)
    _take_file(draft, cli.get("config"))
    draft.tree.setdefault("streams", [{"stream_id": "cam0", "source": "demo"}])
    from_file = dict(draft.origins)
    _take_environment(draft, environ)
    _take_command_line(draft, {name: value for name, value in cli.items() if value is not None})
    # Last, because the environment numbers the streams as the file does.
    fixed = frozenset(path for path, origin in draft.origins.items() if from_file.get(path) != origin)
    _take_changes(draft, changes, fixed, changes_file)
    _take_password(draft)
    _check_present(draft, present)
    try:
        config = Config.model_validate_json(json.dumps(draft.tree), strict=True)
    except ValidationError as error:
        _explain(draft, error.errors(include_url=False, include_context=False))
    if present != "broker":
        _check_size(draft)
    if draft.problems:
        raise ConfigError(*draft.problems)
    return config


def _check_present(draft: _Draft, present: Present) -> None:
    """Complain of files and folders that must be there and are not."""
    if present == "broker":
        _check_files(draft, (pattern for pattern in _FILES if pattern[0] == "mqtt"))
        return
    if present == "all":
        _check_sources(draft)
    _check_files(draft, (pattern for pattern in _FILES if present == "all" or pattern[0] != "models"))
    _check_written(draft)


def _take_changes(draft: _Draft, changes: Mapping[str, Any], fixed: frozenset[KeyPath], origin: str) -> None:
    """Put what commands have changed over everything but the values at `fixed`; streams are told by their id."""
    _change(draft, {key: value for key, value in changes.items() if key != "streams"}, (), fixed, origin)
    streams = changes.get("streams", {})
    if not isinstance(streams, dict):
        draft.problems.append(Problem("streams", f"should be keys and values, by stream_id ({origin})"))
    elif isinstance(draft.tree.get("streams"), list):
        _change_streams(draft, streams, fixed, origin)


def _change(draft: _Draft, change: Mapping[str, Any], path: KeyPath, fixed: frozenset[KeyPath], origin: str) -> None:
    for key, value in change.items():
        below = (*path, key)
        if isinstance(value, dict):
            _change(draft, value, below, fixed, origin)
        elif not any(place[: len(below)] == below or below[: len(place)] == place for place in fixed - {("streams",)}):
            draft.origins = {known: line for known, line in draft.origins.items() if known[: len(below)] != below}
            draft.assign(below, value, origin)


def _change_streams(draft: _Draft, changes: Mapping[str, Any], fixed: frozenset[KeyPath], origin: str) -> None:
    """Change, add and remove streams; which there are is left alone where the environment or the command line lists
    them. What was changed of a stream that is no more in the file is of no use.
    """
    streams = draft.tree["streams"]
    places = {str(stream.get("stream_id")): place for place, stream in enumerate(streams) if isinstance(stream, dict)}
    listed = ("streams",) in fixed
    for stream_id, change in changes.items():
        if change is not None and not isinstance(change, dict):
            draft.problems.append(Problem(f"streams.{stream_id}", f"should be keys and values, or null ({origin})"))
        elif change is not None and stream_id in places:
            _change(draft, change, ("streams", places[stream_id]), fixed, origin)
        elif change is not None and "source" in change and not listed:
            draft.assign(("streams", len(streams)), {"stream_id": stream_id, **change}, origin)
    if not listed:
        _remove_streams(draft, [place for name, place in places.items() if name in changes and changes[name] is None])


def _remove_streams(draft: _Draft, gone: Sequence[int]) -> None:
    for place in sorted(gone, reverse=True):
        del draft.tree["streams"][place]
        moved = [(_without_stream(path, place), origin) for path, origin in draft.origins.items()]
        draft.origins = {path: origin for path, origin in moved if path}


def _without_stream(path: KeyPath, place: int) -> KeyPath:
    """Return where the value at `path` is without the stream at `place`; nowhere if it was that one's."""
    if len(path) < 2 or path[0] != "streams" or not isinstance(path[1], int) or path[1] < place:
        return path
    return () if path[1] == place else ("streams", path[1] - 1, *path[2:])


def check(tree: dict[str, Any]) -> Config:
    """Return the configuration that `tree` says, as plain values. Raises ConfigError with every problem found; whether
    files are there is not looked at.
    """
    draft = _Draft(Path(), tree)
    try:
        return Config.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        _explain(draft, error.errors(include_url=False, include_context=False))
        raise ConfigError(*draft.problems) from None


def _take_file(draft: _Draft, named: str | None) -> None:
    path = draft.cwd / (named if named is not None else DEFAULT_FILE)
    shown = named if named is not None else DEFAULT_FILE
    try:
        document = yaml_file.parse(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if named is not None:
            draft.problems.append(Problem("", f"--config: no such file: {shown}"))
        return
    except (OSError, ValueError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None)
        draft.problems.append(Problem("", f"{shown}: {reason or error}"))
        return
    if not isinstance(document.value, dict | None):
        draft.problems.append(Problem("", f"{shown}: expected keys and values, as in `instance_id: orion`"))
        return
    draft.tree = document.value or {}
    draft.origins |= {path: f"{shown}, line {line}" for path, line in document.lines.items() if path}
    mqtt = draft.tree.get("mqtt")
    if isinstance(mqtt, dict) and "password" in mqtt:
        del mqtt["password"]
        draft.complain(_PASSWORD, "a secret has no place in this file: use mqtt.password_file or ORION_MQTT__PASSWORD")


def _take_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    ours = (name for name in environ if name.startswith(PREFIX) and name not in FOREIGN_VARIABLES)
    for name in sorted(ours, key=lambda name: (name.count("__"), name)):
        draft.assign_text(tuple(name.removeprefix(PREFIX).lower().split("__")), environ[name], name)


def _take_command_line(draft: _Draft, cli: Mapping[str, Any]) -> None:
    if "source" in cli:
        draft.assign(("streams",), [{"stream_id": f"cam{index}"} for index in range(len(cli["source"]))], "--source")
        for index, source in enumerate(cli["source"]):
            draft.assign_text(("streams", index, "source"), source, "--source")
    _displace_pair(draft, cli)
    for name, path in OPTIONS.items():
        if name in cli:
            _assign_option(draft, path, cli[name], f"--{name.replace('_', '-')}")
    for index, stream in enumerate(_streams(draft)):
        if "rate" in cli:
            _assign_option(draft, ("streams", index, "rate_hz"), cli["rate"], "--rate")
        if "attention" in cli and isinstance(stream, dict) and "mode" in (stream.get("attention") or ()):
            draft.assign(("streams", index, "attention", "mode"), _attention_mode(cli["attention"]), "--attention")
    if "attention" in cli:
        draft.assign(("attention", "mode"), _attention_mode(cli["attention"]), "--attention")


def _attention_mode(switch: str) -> str:
    return {"on": "auto"}.get(switch, switch)


def _assign_option(draft: _Draft, path: KeyPath, value: Any, origin: str) -> None:
    if isinstance(value, str):
        draft.assign_text(path, value, origin)
    else:
        draft.assign(path, value, origin)


def _displace_pair(draft: _Draft, cli: Mapping[str, Any]) -> None:
    """Forget files that were named before, if the command line names the pair in another way."""
    forgotten: tuple[str, ...] = ()
    if "model" in cli:
        forgotten = ("model_path_320",)
    elif "model_dir" in cli or "model_size" in cli:
        forgotten = ("model_path", "model_path_320")
    for key in forgotten:
        draft.assign((*_DETECTOR, key), None, "the command line")


def _take_password(draft: _Draft) -> None:
    """Read the password's file, unless the environment has the password itself."""
    path: KeyPath = ("mqtt", "password_file")
    named = keys.at(draft.tree, path)
    if not isinstance(named, str) or keys.at(draft.tree, _PASSWORD) is not None:
        return
    if why_absent(draft.cwd / named, "file"):
        return
    try:
        lines = (draft.cwd / named).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ResourceError(f"mqtt.password_file: cannot read {named}: {reason}") from error
    if lines and lines[0]:
        draft.assign(_PASSWORD, lines[0], "mqtt.password_file")
    else:
        draft.complain(path, f"the first line of {named} is empty")


def _check_sources(draft: _Draft) -> None:
    for index in range(len(_streams(draft))):
        path: KeyPath = ("streams", index, "source")
        source = keys.at(draft.tree, path)
        if not isinstance(source, str) or not source or source_kind(source) != "file":
            continue
        if reason := why_absent(draft.cwd / source, "file"):
            draft.complain(path, f"{reason}: {source!r}; a source is {keys.description(path)}")


def _check_files(draft: _Draft, patterns: Iterable[tuple[str, ...]]) -> None:
    for pattern in patterns:
        for path, value in keys.matches(draft.tree, pattern):
            if reason := why_absent(draft.cwd / value, "file or folder"):
                draft.complain(path, f"{reason}: {value!r}")


def _check_size(draft: _Draft) -> None:
    """Complain of a size that is asked for where there is no folder to look it up in."""
    path: KeyPath = (*_DETECTOR, "size")
    if any(keys.at(draft.tree, (*_DETECTOR, key)) is not None for key in ("model_dir", "model_path")):
        return
    size = keys.at(draft.tree, path)
    # What is no text is told by the schema.
    if isinstance(size, str) and (size != _DEFAULT_SIZE or draft.origins.get(path) == "--model-size"):
        draft.complain(path, f"{size} is looked up in a folder of models: name it by --model-dir or model_dir")


def _check_written(draft: _Draft) -> None:
    for pattern in _WRITTEN:
        for path, value in keys.matches(draft.tree, pattern):
            reason = None if value == "-" else why_absent((draft.cwd / value).parent, "folder")
            if reason is not None:
                draft.complain(path, f"{reason}: {str(Path(value).parent)!r}")


def _explain(draft: _Draft, errors: Iterable[ErrorDetails]) -> None:
    """Turn pydantic's errors into problems: one for each path, in words for the operator."""
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for error in errors:
        by_path.setdefault(_path_in(draft.tree, error), []).append(error)
    for path, found in by_path.items():
        # A list is also called too short when the items that it has are wrong.
        echo = found[0]["type"] == "too_short" and any(other[: len(path)] == path != other for other in by_path)
        if not echo:
            draft.complain(path, _message(draft.tree, path, found))
    # Streams that are wrong in themselves are not compared by the schema.
    if twice := same_ids([_stream_id(stream) for stream in _streams(draft)]):
        draft.complain(("streams",), twice)


def _streams(draft: _Draft) -> list[Any]:
    streams = draft.tree.get("streams")
    return streams if isinstance(streams, list) else []


def _stream_id(stream: Any) -> str | None:
    """Return the id of a stream, None where it is no id."""
    stream_id = stream.get("stream_id") if isinstance(stream, dict) else None
    return stream_id if isinstance(stream_id, str) and re.fullmatch(r"[a-z0-9-]{1,64}", stream_id) else None


def _path_in(tree: Any, error: ErrorDetails) -> KeyPath:
    """Return where the error is in the tree: without what pydantic adds for the members of a union."""
    path = error["loc"]
    if error["type"] == "missing":
        return path
    place: Any = tree
    for depth, key in enumerate(path):
        try:
            place = place[key]
        except (KeyError, IndexError, TypeError):
            return path[:depth]
    return path


def _message(tree: Any, path: KeyPath, errors: Sequence[ErrorDetails]) -> str:
    kind = errors[0]["type"]
    if kind == "extra_forbidden":
        return f"unknown key; {keys.hint(path)}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return errors[0]["msg"].removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return f"should be {keys.description(path)}{_shown(path, keys.at(tree, path))}"
    # Of a union, the member whose type fits says what is wrong.
    telling = [error for error in errors if not _TYPE_ERRORS.fullmatch(error["type"])] or errors
    wanted = " or ".join(_LEAD.sub("", error["msg"]) for error in telling)
    for technical, plain in _PLAIN_WORDS.items():
        wanted = wanted.replace(technical, plain)
    return f"should {'' if kind in _SIZE_ERRORS else 'be '}{wanted}{_shown(path, keys.at(tree, path))}"


def _shown(path: KeyPath, value: Any) -> str:
    """Return the wrong value as the end of a sentence, without secrets."""
    if path[: len(_PASSWORD)] == _PASSWORD:
        return ""
    if isinstance(value, dict | list):
        return ", not keys and values" if isinstance(value, dict) else f", not a list of {len(value)}"
    text = uris.mask(value) if isinstance(value, str) else value
    return f", not {json.dumps(text, ensure_ascii=False)[:80]}"


def _has_room_for(place: Any, key: str | int) -> bool:
    if isinstance(place, list):
        return isinstance(key, int) and key <= len(place)
    return isinstance(place, dict)


def _put(place: Any, key: str | int, value: Any) -> None:
    if isinstance(place, list) and key == len(place):
        place.append(value)
    else:
        place[key] = value
