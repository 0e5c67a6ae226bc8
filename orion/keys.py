"""What the schema knows of a key: its type, what a text means for it, and what an unknown one may be meant for;
and how values are found in a tree of settings. Pure.
"""

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from orion import yaml_file
from orion.config import Config
from orion.yaml_file import KeyPath


def hint(path: KeyPath) -> str:
    """Return what the unknown key at `path` may be meant for: the same name elsewhere, a sister of it or a key
    elsewhere that is much like it, else the nearest sister, and which others there are.
    """
    name = str(path[-1])
    section = _type_at(path[:-1])
    sisters = list(_keys_of(section))
    elsewhere = {known[-1]: ".".join(known) for known in reversed([*_all_keys(Config)])}
    if name in elsewhere:
        return f"did you mean {elsewhere[name]}?"
    words = [word for word in name.split("_") if word in sisters]
    far = [elsewhere[known] for known in difflib.get_close_matches(name, elsewhere, 1, 0.75)]
    if near := words or difflib.get_close_matches(name, sisters, 1, 0.6) or far:
        return f"did you mean {near[0]}?"
    # Secrets have no place in a file.
    shown = [known for known in sisters if not section.model_fields[known].exclude]
    (nearest,) = difflib.get_close_matches(name, shown, 1, 0.0)
    return f"did you mean {nearest}? known are {', '.join(shown)}"


def value_of(path: KeyPath, text: str) -> Any:
    """Return what `text` means for the key at `path`: itself where text is wanted, else a YAML value."""
    wanted = _type_at(path)
    if wanted is SecretStr or wanted is str or wanted is Path:
        return None if text in {"", "null"} and wanted is not SecretStr and _takes_none(path) else text
    try:
        return yaml_file.parse(text).value
    except yaml_file.YamlError:
        return text


def _type_at(path: KeyPath) -> Any:
    """Return the type of the key at `path`, without None; None for a key that is not known."""
    wanted: Any = Config
    for key in path:
        if typing.get_origin(wanted) is tuple and str(key).isdecimal():
            wanted = _plain(typing.get_args(wanted)[0])
        else:
            known = _keys_of(wanted).get(str(key))
            wanted = None if known is None else _plain(known)
    return wanted


def _takes_none(path: KeyPath) -> bool:
    annotation = _keys_of(_type_at(path[:-1]))[str(path[-1])]
    return types.NoneType in typing.get_args(annotation)


def _keys_of(section: Any) -> dict[str, Any]:
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: info.annotation for name, info in section.model_fields.items()}
    return {}


def _plain(annotation: Any) -> Any:
    """Return the annotation without Annotated and None."""
    if hasattr(annotation, "__metadata__"):
        return _plain(annotation.__origin__)
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
        return _plain(members[0]) if len(members) == 1 else annotation
    return annotation


def _all_keys(section: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, annotation in _keys_of(section).items():
        kind = _plain(annotation)
        yield (*path, name)
        if typing.get_origin(kind) is tuple:
            yield from _all_keys(_plain(typing.get_args(kind)[0]), (*path, name, "0"))
        else:
            yield from _all_keys(kind, (*path, name))


def description(path: KeyPath) -> str:
    """Return what the schema says of the known key at `path`."""
    section = _type_at(path[:-1])
    return str(section.model_fields[str(path[-1])].description)


def at(tree: Any, path: KeyPath) -> Any:
    """Return the value at `path`, None if there is none."""
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def matches(tree: Any, pattern: Sequence[str], path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield the texts at `pattern`, in which `*` is any index."""
    if not pattern:
        if isinstance(tree, str) and tree:
            yield path, tree
    elif pattern[0] == "*":
        for index, item in enumerate(tree if isinstance(tree, list) else ()):
            yield from matches(item, pattern[1:], (*path, index))
    elif isinstance(tree, dict) and pattern[0] in tree:
        yield from matches(tree[pattern[0]], pattern[1:], (*path, pattern[0]))
