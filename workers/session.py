"""The one module that imports onnxruntime: a loaded model with its bound buffers. Everything here is called from the
thread that owns the session (the worker's main thread, or the thread that loads the next pair), one at a time.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from orion.errors import ModelError
from orion.messages import SessionInfo, SessionSize
from workers.card import ModelCard, Signature, probe_shape, read_card
from workers.providers import PROVIDERS

_log = logging.getLogger(__name__)

_SEVERITY_FATAL = 4
_STATE = ort.capi.onnxruntime_pybind11_state
_UNUSABLE: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_STATE).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    OSError,
)
"""What reading or running a model can raise: onnxruntime's dozen classes have no common root of their own."""

_SPIN_US = 100
"""How long an inference thread looks for more work before it sleeps: long enough to bridge the gaps inside a run. The
library's default lets two sessions slow each other twofold when they alternate, and at 5 Hz takes three times the
processor time. Versions that do not know the setting (1.24 for one) only stop spinning at the end of each run."""


class Session:
    """A model, loaded and warm, that runs on `tensor` (1, 3, size, size) and answers in one kept output array."""

    def __init__(self, path: str, size: SessionSize, provider: str, threads: int) -> None:
        started = time.perf_counter()
        self._threads = threads
        self._provider = provider
        with _readable(path):
            self._session = _open(path, provider, threads)
            signature = _signature(path, self._session)
        self.card = read_card(signature)
        _check_side(self.card, size)
        self.tensor: NDArray[np.floating] = np.zeros((1, 3, size, size), np.float16 if self.card.half else np.float32)
        loaded = time.perf_counter()
        with _readable(path):
            warm: NDArray[np.floating] = self._session.run(None, {signature.input_name: self.tensor})[0]
            # Memory of our own: that of `warm` belongs to a session that a fallback may replace.
            self._output = warm.copy()
            self._binding = self._bind()
        self._times = ((loaded - started) * 1e3, (time.perf_counter() - loaded) * 1e3)
        self._sha256 = sha256(path)

    @property
    def info(self) -> SessionInfo:
        """The file, the provider that runs it now, and what loading and the warm-up took."""
        load_ms, warm_ms = self._times
        size = self.tensor.shape[-1]
        return SessionInfo(self.card.path, self._sha256, size, self._provider, load_ms=load_ms, warm_ms=warm_ms)

    def run(self) -> NDArray[np.floating]:
        """Run the model on `tensor`; return its output, which the next run overwrites.

        A provider that fails is replaced by `cpu` for good, with one warning. Raises ModelError when `cpu` fails.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except _UNUSABLE as error:
            self._fall_back(error)
        return self._output

    def timed_run(self) -> float:
        """Run once and return the milliseconds it took."""
        start = time.perf_counter()
        self.run()
        return (time.perf_counter() - start) * 1e3

    def _fall_back(self, error: Exception) -> None:
        if self._provider == "cpu":
            raise ModelError(f"{self.card.path}: onnxruntime cannot run it: {_first_line(error)}") from error
        _log.warning("provider %s failed, going on with cpu: %s", self._provider, _first_line(error))
        with _readable(self.card.path):
            self._session = _open(self.card.path, "cpu", self._threads)
            self._provider = "cpu"
            self._binding = self._bind()
            self._session.run_with_iobinding(self._binding)

    def _bind(self) -> ort.IOBinding:
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._session.get_inputs()[0].name, self.tensor)
        output, name = self._output, self._session.get_outputs()[0].name
        binding.bind_output(name, "cpu", 0, output.dtype.type, output.shape, output.ctypes.data)
        return binding


def describe(path: str) -> ModelCard:
    """Return what the model file is, without preparing it to run. Raises ModelError when it cannot be used."""
    options = _quiet_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    with _readable(path):
        signature = _signature(path, ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    return read_card(signature)


def sha256(path: str) -> str:
    """Return the SHA-256 of the file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_providers() -> tuple[str, ...]:
    """Return the names of the providers that this machine's onnxruntime has, `cpu` last."""
    there = set(ort.get_available_providers())
    return tuple(name for name, provider in PROVIDERS.items() if provider.library_name in there)


def runtime_version() -> str:
    """Return onnxruntime's version."""
    return str(ort.__version__)


def _open(path: str, provider: str, threads: int) -> ort.InferenceSession:
    options = _quiet_options()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    chosen = PROVIDERS[provider]
    session = ort.InferenceSession(path, options, providers=[(chosen.library_name, chosen.options(threads))])
    if session.get_providers()[0] != chosen.library_name:
        raise RuntimeError(f"provider {provider} did not start")
    session.disable_fallback()
    return session


def _quiet_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _SEVERITY_FATAL
    return options


def _signature(path: str, session: ort.InferenceSession) -> Signature:
    """Read what the model says of itself; an output whose shape is open is learned from one inference."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"{path}: expected one input and one output, found {len(inputs)} and {len(outputs)}")
    signature = Signature(
        path=path,
        input_name=inputs[0].name,
        input_type=inputs[0].type,
        input_shape=tuple(inputs[0].shape),
        output_name=outputs[0].name,
        output_type=outputs[0].type,
        output_shape=tuple(outputs[0].shape),
        metadata=dict(session.get_modelmeta().custom_metadata_map),
    )
    probe = probe_shape(signature)
    if probe is None:
        return signature
    blank = np.zeros(probe, np.float16 if signature.half else np.float32)
    shape = session.run(None, {signature.input_name: blank})[0].shape
    return replace(signature, output_shape=tuple(shape))


def _check_side(card: ModelCard, size: SessionSize) -> None:
    if card.side is not None and card.side != size:
        raise ModelError(f"{card.path}: expected an input of {size}x{size}, found {card.side}x{card.side}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn what reading and running a model file can raise into ModelError."""
    if not Path(path).is_file():
        raise ModelError(f"{path}: expected an ONNX file, found none")
    try:
        yield
    except _UNUSABLE as error:
        raise ModelError(f"{path}: onnxruntime cannot use it: {_first_line(error)}") from error
