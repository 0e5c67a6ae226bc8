"""`orion ctl`: one command to a running instance, and its answer in words or as JSON. Runs in the main thread of a
short-lived process; what the schema refuses is said before anything is sent.
"""

import difflib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orion import requests, settings, yaml_file
from orion.config import Config
from orion.errors import EXIT_GAVE_UP, EXIT_OK, ConfigError, Problem
from orion.remote import Remote, broker_url, of_running

_TIMEOUT_S = 5.0
"""For the broker to let us in, and then for the answer."""
_LONG_TIMEOUT_S = 60.0
_UPDATE = "update_config"
_CONFIG = "config"
"""The parameter of that command."""
_LONG = frozenset({"set_model_size", _UPDATE, "restart_worker"})
"""Commands that may load models."""


def run(
    config: Config,
    command: str | None,
    words: Sequence[str],
    *,
    timeout_s: float | None,
    as_json: bool,
    named: bool,
) -> int:
    """Send the command and print the answer; return 0 for success, 1 for an error answer. `named` says that the broker
    is from the command line. Raises NoAnswerError (3), and ConfigError (2) for what must not be sent.
    """
    if command is None:
        sys.stdout.write("".join(f"{line}\n" for line in overview()))
        return EXIT_OK
    full = complete(command)
    request = {"command": full, "params": parameters(full, words)}
    config = of_running(config, named=named)
    limit_s = timeout_s if timeout_s is not None else _LONG_TIMEOUT_S if full in _LONG else _TIMEOUT_S
    health = config.mqtt.topics.expanded(config.instance_id)["health"]
    with Remote(config, broker_url(config, named=named), {health: 1}) as remote:
        remote.await_ready(time.monotonic() + (_TIMEOUT_S if timeout_s is None else timeout_s))
        answer = remote.ask(config, request, time.monotonic() + limit_s)
    sys.stdout.write(f"{json.dumps(answer) if as_json else readable(answer)}\n")
    return EXIT_GAVE_UP if answer.get("status") == "error" else EXIT_OK


def overview() -> list[str]:
    """Return every command with its parameters, one a line; those in brackets may be left out. KEY is one of the
    configuration, with dots.
    """
    lines = []
    for name, schema in requests.SCHEMAS.items():
        fields = schema.model_fields.items()
        needed = [f"{key}=..." for key, field in fields if field.is_required()]
        words = needed + [f"[{key}=...]" for key, field in fields if not field.is_required()]
        lines.append(" ".join([name, *(["KEY=... [KEY=...]"] if name == _UPDATE else words)]))
    return lines


def complete(command: str) -> str:
    """Return the command that `command` begins, - for _ allowed. Raises ConfigError if there is none, or several."""
    wanted = command.replace("-", "_")
    fitting = [name for name in requests.SCHEMAS if name.startswith(wanted)]
    if wanted in fitting or len(fitting) == 1:
        return wanted if wanted in fitting else fitting[0]
    if fitting:
        raise ConfigError(Problem("", f"{command!r} is ambiguous: {', '.join(fitting)}"))
    beginnings = {name[: len(wanted)]: name for name in requests.SCHEMAS} | {name: name for name in requests.SCHEMAS}
    near = difflib.get_close_matches(wanted, beginnings, 1)
    meant = f"; did you mean {beginnings[near[0]]}?" if near else "."
    raise ConfigError(Problem("", f"{command!r} is no command{meant} `orion ctl` lists all"))


def parameters(command: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that `key=value` words give, checked. Values are YAML; dots in a key lead into sections,
    and the keys of `update_config` are those of the configuration, with or without `config` before them. Raises
    ConfigError that names the field.
    """
    params: dict[str, Any] = {_CONFIG: {}} if command == _UPDATE else {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise ConfigError(Problem("", f"{word!r}: expected key=value"))
        try:
            value = yaml_file.parse(text).value
        except yaml_file.YamlError as error:
            raise ConfigError(Problem(key, str(error))) from None
        _check_numbers(value, key)
        inside = command != _UPDATE or key.partition(".")[0] == _CONFIG
        _put(params, key if inside else f"{_CONFIG}.{key}", value)
    try:
        requests.check(command, params)
    except ValueError as error:
        raise ConfigError(Problem("", str(error).removeprefix("params."))) from None
    if command == _UPDATE:
        _check_keys(params[_CONFIG])
    return params


def _check_numbers(value: Any, path: str) -> None:
    """Say which number is none that JSON has. Raises ConfigError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(Problem(path, f"should be a finite number, not {value}"))
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        _check_numbers(part, f"{path}.{key}")


def _check_keys(part: Mapping[str, Any]) -> None:
    """Say what is wrong with the given keys whatever else is configured; streams are left to the instance, which knows
    what they are now. Raises ConfigError.
    """
    given = {key: value for key, value in part.items() if key != "streams"}
    try:
        settings.check(given)
    except ConfigError as error:
        wrong = [problem for problem in error.problems if problem.path in {*_paths(given)}]
        if wrong:
            raise ConfigError(*wrong) from None


def _paths(part: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in part.items():
        yield f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{above}{key}.")


def readable(answer: Mapping[str, Any]) -> str:
    """Return an answer for people: what became of the command, then its data."""
    if answer.get("status") == "error":
        head = f"{answer.get('command_ack')}: {answer.get('code')}: {answer.get('error')}"
    else:
        head = f"{answer.get('command_ack')}: {answer.get('status')}"
    data = answer.get("data")
    if not data:
        return head
    return f"{head}\n{yaml_file.dump(data).rstrip()}"


def _put(place: dict[str, Any], key: str, value: Any) -> None:
    """Set one value; what was given before stays. Raises ConfigError where both cannot be."""
    *sections, name = key.split(".")
    shown = key.removeprefix(f"{_CONFIG}.")
    for section in sections:
        below = place.setdefault(section, {})
        if not isinstance(below, dict):
            raise ConfigError(Problem(shown, f"{section} has a value already"))
        place = below
    if isinstance(known := place.get(name), dict) and known:
        raise ConfigError(Problem(shown, "has values already"))
    place[name] = value
