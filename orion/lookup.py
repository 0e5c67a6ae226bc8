"""Which model files make the pair: the ones that are named, the embedded ones, or what a short-lived child finds in a
folder. At the start the main thread waits for that child; later the supervisor's thread only looks whether it has
answered. The long-lived process never loads the catalogue.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from select import select

from orion.config import PersonDetectorConfig
from orion.errors import EXIT_OK, ModelError
from orion.signals import held_back

EMBEDDED_HINT = (
    "using the embedded model: it finds upright people, whole bodies, good contrast. For real use take YOLO11: "
    "orion models export yolo11n makes it, or says how; then run with --model-dir models"
)
_LOOKUP_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class ModelPair:
    """The files of a pair; without `model_320` the 640 runs alone."""

    model_640: Path
    model_320: Path | None
    embedded: bool = False


def is_embedded(model: PersonDetectorConfig) -> bool:
    """Return whether nothing but the embedded model is configured."""
    return model.model_path is None and model.model_dir is None


def find_pair(model: PersonDetectorConfig) -> ModelPair:
    """Return the configured pair. Raises ModelError when the folder does not hold it."""
    if model.model_path is not None:
        return ModelPair(model.model_path, model.model_path_320)
    if model.model_dir is not None:
        return _ask_catalogue(model.model_dir, model.size)
    package = find_spec("models")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(next(iter(package.submodule_search_locations)))
    return ModelPair(folder / "hog_person_640.onnx", folder / "hog_person_320.onnx", embedded=True)


class Search:
    """A look-up in a folder that goes on in a child. `fileno` becomes readable when `result` has an answer; who begins
    one ends it with `close`. Raises ModelError when no child can be started.
    """

    def __init__(self, folder: Path, size: str) -> None:
        self._folder = folder
        with ExitStack() as undo:
            try:
                self._errors = undo.enter_context(tempfile.TemporaryFile())
                # It answers also when a signal to the whole group asks for a stop, and then leaves by itself.
                with held_back():
                    self._child = subprocess.Popen(  # noqa: S603 - our own module
                        [sys.executable, "-m", "workers.catalogue_cli", "resolve", str(folder), size],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=self._errors,
                    )
            except OSError as error:
                raise ModelError(
                    f"models.person_detector.model_dir: cannot be looked into: {error.strerror}"
                ) from error
            undo.pop_all()
        os.set_blocking(self.fileno(), False)
        self._output = b""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        assert self._child.stdout is not None
        return self._child.stdout.fileno()

    def result(self) -> ModelPair | None:
        """Return the pair, or None while the child is at work. Raises ModelError when the folder does not hold it."""
        with suppress(BlockingIOError):
            while piece := os.read(self.fileno(), 65536):
                self._output += piece
            # Its output has ended, so it leaves.
            code = self._child.wait()
            self._errors.seek(0)
            return _answer(self._folder, code, self._output.decode(), self._errors.read().decode(errors="replace"))
        return None

    def close(self) -> None:
        """End the child, whatever it does."""
        self._child.kill()
        self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._errors.close()


def _ask_catalogue(folder: Path, size: str) -> ModelPair:
    deadline_s = time.monotonic() + _LOOKUP_LIMIT_S
    with closing(Search(folder, size)) as search:
        while (pair := search.result()) is None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise ModelError(f"models.person_detector.model_dir: {folder} could not be read in time")
            select([search], [], [], left_s)
        return pair


def _answer(folder: Path, code: int, output: str, errors: str) -> ModelPair:
    if code != EXIT_OK:
        raise ModelError(f"models.person_detector.model_dir: {errors.strip() or f'{folder} cannot be read'}")
    found = json.loads(output)
    small = found["model_320"]
    return ModelPair(Path(found["model_640"]), Path(small) if small else None)
