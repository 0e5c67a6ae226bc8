"""A folder of models is looked into by a child; a machine that has none to give is no reason to fall over."""

import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from orion.errors import ModelError
from orion.lookup import Search


def test_a_machine_that_starts_no_process_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def popen(*_: object, **__: object) -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(ModelError, match="model_dir: cannot be looked into: Resource temporarily unavailable"):
        Search(tmp_path, "n")
