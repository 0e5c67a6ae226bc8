"""From what an operator writes to a source that can be opened: files, cameras over the network and of this machine, and
the demo scene.
"""

import re
from pathlib import Path
from typing import Final

import numpy as np

from orion import uri as uris
from orion.demo import DemoFormat
from orion.device import DeviceSource
from orion.errors import ConfigError, Problem
from orion.messages import Pixels
from orion.network import HttpSource, NetworkSource
from orion.paths import why_absent
from orion.scene import DemoScene
from orion.source import OPEN_TIMEOUT_S, READ_TIMEOUT_S, Source, SourceInfo
from orion.video import FileSource

_SOURCES: Final = "a source is demo, demo:WIDTHxHEIGHT@FPS, a video file, rtsp://, http(s):// or a device index"


class DemoSource(Source):
    """The built-in scene. Never ends; whoever reads it sets the pace."""

    kind = "demo"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._scene = DemoScene(DemoFormat.parse(uri))
        self._index = 0

    def open(self) -> SourceInfo:
        """Begin the scene, from its first picture."""
        self._index = 0
        return SourceInfo(self._scene.width, self._scene.height, self._scene.fps, None)

    def read(self, dst: Pixels) -> Pixels | None:
        """Render the next picture."""
        fits = dst.shape == (self._scene.height, self._scene.width, 3)
        out = dst if fits else np.empty((self._scene.height, self._scene.width, 3), np.uint8)
        self._scene.render(self._index, out)
        self._index += 1
        return out

    def skip(self) -> bool:
        """Leave a picture out; its time passes all the same."""
        self._index += 1
        return True

    @property
    def stream_time_s(self) -> float | None:
        """Time of the last picture in the scene."""
        return (self._index - 1) / self._scene.fps if self._index else None

    def close(self) -> None:
        """Do nothing: the scene holds nothing."""


def make_source(uri: str, open_timeout_s: float = OPEN_TIMEOUT_S, read_timeout_s: float = READ_TIMEOUT_S) -> Source:
    """Return the source that `uri` names, not opened yet; the timeouts are those of network sources.

    `uri` is `demo`, `demo:WIDTHxHEIGHT@FPS`, a device index, an address with rtsp, rtsps, http or https, or the path of
    a video file. Raises ConfigError for what can be seen without opening it, a file that does not exist included.
    """
    scheme, separator, _ = uri.partition("://")
    if separator:
        return _network_source(uri, scheme.lower(), open_timeout_s, read_timeout_s)
    if uri == "demo" or uri.startswith("demo:"):
        return _demo_source(uri)
    if re.fullmatch(r"\d{1,3}", uri, re.ASCII):
        return DeviceSource(uri)
    reason = why_absent(Path(uri), "file") if uri else "no such file"
    if reason is not None:
        raise _wrong(uri, f"{reason}; {_SOURCES}")
    return FileSource(uri)


def _network_source(uri: str, scheme: str, open_timeout_s: float, read_timeout_s: float) -> Source:
    kinds: dict[str, type[NetworkSource | HttpSource]] = {
        "rtsp": NetworkSource,
        "rtsps": NetworkSource,
        "http": HttpSource,
        "https": HttpSource,
    }
    if scheme not in kinds:
        raise _wrong(uri, f"unknown scheme {scheme}://; known are {', '.join(f'{known}://' for known in kinds)}")
    try:
        uris.split(uri)
    except ValueError as error:
        raise _wrong(uri, str(error)) from None
    return kinds[scheme](scheme + uri[len(scheme) :], open_timeout_s, read_timeout_s)


def _demo_source(uri: str) -> Source:
    try:
        return DemoSource(uri)
    except ValueError as error:
        raise _wrong(uri, str(error)) from None


def _wrong(uri: str, what: str) -> ConfigError:
    return ConfigError(Problem("", f"source {uris.mask(uri)!r}: {what}"))
