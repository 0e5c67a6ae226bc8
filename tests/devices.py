"""A camera of this machine for tests: a Video4Linux device that umockdev makes for the programs that are started with
it. What is a stand-in is the driver; the library that reads it, its ioctls and its memory map are the real ones.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from benchmarks.rtsp import PYTHON
from tests.conftest import missing

_PACKAGES = "umockdev gir1.2-umockdev-1.0 python3-gi"
_PRELOAD = "libumockdev-preload.so.0"
_LOOK = 'import gi; gi.require_version("UMockdev", "1.0"); from gi.repository import UMockdev'


@cache
def _lacks() -> bool:
    if shutil.which("umockdev-wrapper") is None or not Path(PYTHON).exists():
        return True
    return subprocess.run([PYTHON, "-c", _LOOK], capture_output=True, check=False).returncode != 0


class VideoDevice:
    """The camera with index 0 for whoever runs with `environment`."""

    def __init__(self, width: int = 320, height: int = 240, fps: int = 20) -> None:
        self._arguments = [str(number) for number in (width, height, fps)]

    @property
    def environment(self) -> dict[str, str]:
        """Return what a program's environment must have, to see the camera."""
        return {"LD_PRELOAD": _PRELOAD, "UMOCKDEV_DIR": self._tree}

    def tell(self, order: Literal["plug", "unplug", "busy", "free"]) -> None:
        """Plug it in or pull it out, or let another program have it; done when this returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == order

    def __enter__(self) -> Self:
        if _lacks():
            missing(f"umockdev (Debian packages {_PACKAGES})")
        driver = Path(__file__).with_name("v4l2_driver.py")
        self._process = subprocess.Popen(
            [PYTHON, str(driver), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"LD_PRELOAD": _PRELOAD},
        )
        assert self._process.stdout is not None
        self._tree = self._process.stdout.readline().strip()
        assert self._tree, "the driver did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)
