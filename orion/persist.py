"""Where an instance keeps what outlives a run, and the file of changes made by command: a part of a configuration that
holds over the file, with streams by their id. Written by the supervisor's thread, read at the start.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orion import yaml_file
from orion.errors import ConfigError, Problem, ResourceError

_HEADER = "# Changes made by command, kept because of persist_changes. Remove this file to forget them.\n"


def state_folder(instance_id: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of an instance's state, `$XDG_STATE_HOME/orion/<instance_id>`."""
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "orion" / instance_id


def changes_file(instance_id: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where an instance keeps the changes that were made by command."""
    return state_folder(instance_id, environ) / "changes.yaml"


def read(path: Path) -> dict[str, Any]:
    """Return the changes that are kept, none if there is no file. Raises ConfigError, naming it, if it is unusable."""
    try:
        kept = yaml_file.parse(path.read_text("utf-8")).value
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(Problem("", f"{path}: {getattr(error, 'strerror', None) or error}")) from error
    if not isinstance(kept, dict | None):
        raise ConfigError(Problem("", f"{path}: expected keys and values"))
    return kept or {}


def write(path: Path, changes: Mapping[str, Any]) -> None:
    """Keep exactly these changes; the file is whole at any moment, and for its owner alone, since addresses of cameras
    may hold passwords. Raises ResourceError.
    """
    beside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not changes:
            path.unlink(missing_ok=True)
            return
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_HEADER)
            file.write(yaml_file.dump(dict(changes)))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ResourceError(f"the changes cannot be kept in {path}: {error.strerror}") from error
