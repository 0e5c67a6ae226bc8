"""What the name of a demo source says, pure. The scene that it names is drawn by `orion.scene`, which needs OpenCV; who
only reads the configuration does not.
"""

import re
from dataclasses import dataclass
from typing import Self

MIN_SIDE, MAX_SIDE = 64, 7680
MIN_FPS, MAX_FPS = 0.1, 240.0

_URI = re.compile(r"demo:(?P<width>[^x@]*)x(?P<height>[^x@]*)@(?P<fps>[^x@]*)")


@dataclass(frozen=True, slots=True)
class DemoFormat:
    """Width and height in pixels and frames a second. ValueError says which of them is out of range."""

    width: int = 1280
    height: int = 720
    fps: float = 30.0

    def __post_init__(self) -> None:
        _check(self.width, "width", MIN_SIDE, MAX_SIDE)
        _check(self.height, "height", MIN_SIDE, MAX_SIDE)
        _check(self.fps, "frame rate", MIN_FPS, MAX_FPS)

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Return what `demo` or `demo:WIDTHxHEIGHT@FPS` names; ValueError says which part is wrong."""
        if uri == "demo":
            return cls()
        match = _URI.fullmatch(uri)
        if match is None:
            raise ValueError(f"a demo source is demo or demo:WIDTHxHEIGHT@FPS, as in demo:1280x720@30, not {uri!r}")
        width, height = _side(match["width"], "width"), _side(match["height"], "height")
        return cls(width, height, _number(match["fps"], "frame rate", r"[0-9]+(\.[0-9]+)?", "a number"))


def _side(text: str, name: str) -> int:
    side = _number(text, name, r"[0-9]+", "a whole number")
    # So many digits are infinity, which is no whole number.
    _check(side, name, MIN_SIDE, MAX_SIDE)
    return int(side)


def _number(text: str, name: str, pattern: str, kind: str) -> float:
    if re.fullmatch(pattern, text) is None:
        raise ValueError(f"the demo's {name} must be {kind}, not {text!r}")
    return float(text)


def _check(value: float, name: str, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"the demo's {name} must be {low:g} to {high:g}, not {value:g}")
