"""The one module that imports onnxruntime: a loaded model with its bound buffers. Everything here is called from the
thread that owns the session (the worker's main thread, or the thread that loads the next pair), one at a time.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from orion.errors import ModelError
from orion.messages import SessionInfo, SessionSize
from workers.card import ModelCard, Signature, read_card

_SEVERITY_ERROR = 3
_STATE = ort.capi.onnxruntime_pybind11_state
_UNUSABLE: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_STATE).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    OSError,
)
"""What reading or running a model can raise: onnxruntime's dozen classes have no common root of their own."""
_pool_sizes: list[int] = []
_PROVIDERS = {"cpu": "CPUExecutionProvider"}


class Session:
    """A model, loaded and warm, that runs on `tensor` (1, 3, size, size) and answers in one kept output array."""

    def __init__(self, path: str, size: SessionSize, threads: int) -> None:
        started = time.perf_counter()
        _share_threads(threads)
        with _readable(path):
            self._session = ort.InferenceSession(path, _options(), providers=[_PROVIDERS["cpu"]])
            signature = _signature(path, self._session)
            self.card = read_card(signature)
            _check_size(self.card, size)
            self.tensor: NDArray[np.floating] = np.zeros(
                (1, 3, size, size), np.float16 if self.card.half else np.float32
            )
            loaded = time.perf_counter()
            self._output: NDArray[np.floating] = self._session.run(None, {signature.input_name: self.tensor})[0]
            self._binding = self._bind(signature)
            self.run()
        self.info = SessionInfo(
            path=path,
            sha256=sha256(path),
            size=size,
            provider="cpu",
            load_ms=(loaded - started) * 1e3,
            warm_ms=(time.perf_counter() - loaded) * 1e3,
        )

    def run(self) -> NDArray[np.floating]:
        """Run the model on `tensor`; return its output, which the next run overwrites."""
        self._session.run_with_iobinding(self._binding)
        return self._output

    def timed_run(self) -> float:
        """Run once and return the milliseconds it took."""
        start = time.perf_counter()
        self.run()
        return (time.perf_counter() - start) * 1e3

    def _bind(self, signature: Signature) -> ort.IOBinding:
        binding = self._session.io_binding()
        binding.bind_cpu_input(signature.input_name, self.tensor)
        output = self._output
        binding.bind_output(signature.output_name, "cpu", 0, output.dtype.type, output.shape, output.ctypes.data)
        return binding


def describe(path: str) -> ModelCard:
    """Return what the model file is, without preparing it to run. Raises ModelError when it cannot be used."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _SEVERITY_ERROR
    options.intra_op_num_threads = 1
    with _readable(path):
        return read_card(_signature(path, ort.InferenceSession(path, options, providers=[_PROVIDERS["cpu"]])))


def sha256(path: str) -> str:
    """Return the SHA-256 of the file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _share_threads(threads: int) -> None:
    """Size the process's one pool, from which all sessions draw so that they do not spin against each other.

    onnxruntime allows this once in a process's life: the first caller decides.
    """
    if not _pool_sizes:
        ort.set_global_thread_pool_sizes(threads, 1)
        _pool_sizes.append(threads)


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _SEVERITY_ERROR
    options.use_per_session_threads = False
    return options


def _signature(path: str, session: ort.InferenceSession) -> Signature:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"{path}: expected one input and one output, found {len(inputs)} and {len(outputs)}")
    return Signature(
        path=path,
        input_name=inputs[0].name,
        input_type=inputs[0].type,
        input_shape=tuple(inputs[0].shape),
        output_name=outputs[0].name,
        output_type=outputs[0].type,
        output_shape=tuple(outputs[0].shape),
        metadata=dict(session.get_modelmeta().custom_metadata_map),
    )


def _check_size(card: ModelCard, size: SessionSize) -> None:
    if card.side is not None and card.side != size:
        raise ModelError(f"{card.path}: expected an input of {size}x{size}, found {card.side}x{card.side}")


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn what reading and running a model file can raise into ModelError."""
    if not Path(path).is_file():
        raise ModelError(f"{path}: expected an ONNX file, found none")
    try:
        yield
    except _UNUSABLE as error:
        raise ModelError(f"{path}: onnxruntime cannot use it: {str(error).splitlines()[0]}") from error
