"""YAML as values that remember their lines, and back to text. Reads the scalars of YAML 1.2's core schema, so that
`off`, `no` and `12:30` stay text, and refuses duplicate keys, tags of other programs and values that contain
themselves. Pure; used by whoever reads or writes settings.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]

_CORE = "tag:yaml.org,2002:"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_HEX_OR_OCTAL = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_MOST_DIGITS = 400
_MOST_VALUES = 20_000
"""Aliases of aliases make billions of values of a few lines."""


class YamlError(ValueError):
    """The text is not YAML that can be used; says where and why, and quotes nothing of it."""

    def __init__(self, message: str, mark: yaml.Mark | None) -> None:
        super().__init__(f"line {mark.line + 1}, column {mark.column + 1}: {message}" if mark else message)


@dataclass(frozen=True, slots=True)
class Document:
    """A document's value, and the line (from 1) of everything in it by its path."""

    value: Any
    lines: Mapping[KeyPath, int]


def parse(text: str) -> Document:
    """Read one YAML document; an empty one is None. Raises YamlError with line and column."""
    loader = yaml.SafeLoader(text) if _printable(text) else None
    if loader is None:
        raise YamlError("the text holds control characters", None)
    try:
        # The loader's own resolver gives every plain scalar a tag of YAML 1.1; only its text is used here.
        node = loader.get_single_node()
        builder = _Builder()
        return Document(builder.value(node, ()) if node is not None else None, builder.lines)
    except yaml.MarkedYAMLError as error:
        raise YamlError(error.problem or "not YAML", error.problem_mark) from None
    except RecursionError:
        raise YamlError("nested too deeply", None) from None
    finally:
        loader.dispose()


def dump(value: Any) -> str:
    """Return plain values as YAML, keys in their order, that `parse` and readers of YAML 1.1 read back as they are."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=80)


def scalar(text: str) -> Any:
    """Return what a plain scalar means in YAML 1.2's core schema: null, a bool, a number, or the text itself."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if len(text) > _MOST_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _HEX_OR_OCTAL.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if _NOT_FINITE.fullmatch(text) else text


def _printable(text: str) -> bool:
    return yaml.reader.Reader.NON_PRINTABLE.search(text) is None


class _Builder:
    """Turns nodes into values and notes their lines."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines[path] = node.start_mark.line + 1
        if len(self.lines) > _MOST_VALUES:
            raise YamlError("more values than a configuration can have", node.start_mark)
        if any(node is outer for outer in self._open):
            raise YamlError("a value that contains itself", node.start_mark)
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.ScalarNode)
            return _scalar_of(node)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError("a key must be text", key_node.start_mark)
            key = key_node.value
            if key in found:
                raise YamlError(f"the key {key!r} is here a second time", key_node.start_mark)
            found[key] = self.value(value_node, (*path, key))
            self.lines[*path, key] = key_node.start_mark.line + 1
        return found


class _Dumper(yaml.SafeDumper):
    """Quotes text that the core schema would take for something else, beside what YAML 1.1 would."""


def _quoted(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(f"{_CORE}str", text, None if isinstance(scalar(text), str) else "'")


_Dumper.add_representer(str, _quoted)


def _scalar_of(node: yaml.ScalarNode) -> Any:
    if node.style is not None:
        return node.value
    if not node.tag.startswith(_CORE):
        raise YamlError("tags are not supported", node.start_mark)
    return scalar(node.value)
