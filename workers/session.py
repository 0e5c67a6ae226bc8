"""The one module that imports onnxruntime: a loaded model with its bound buffers. Everything here is called from the
thread that owns the session (the worker's main thread, or the thread that loads the next pair), one at a time.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Since 1.32 the library starts a thread when it is imported that reports its use to its makers, under an id that it
# keeps in ~/.cache. Nothing leaves the machine of a care room unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from orion.errors import ModelError
from orion.messages import SessionInfo, SessionSize
from workers.byte_input import OwnInput, with_byte_input
from workers.card import ModelCard, Signature, probe_shape, read_card
from workers.providers import PROVIDERS, Provider
from workers.turns import AT_ONCE, Turn

_log = logging.getLogger(__name__)

_SEVERITY_FATAL = 4
_STATE = ort.capi.onnxruntime_pybind11_state
_UNUSABLE: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_STATE).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    OSError,
    ImportError,
)
"""What reading or running a model, or loading a plugin, can raise: onnxruntime's dozen classes have no common root."""

_BUILT_IN = frozenset(ort.get_available_providers())
"""The providers of this build; plugins come to the library's own list later."""

_KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}

_SPIN_US = 100
"""How long an inference thread looks for more work before it sleeps: long enough to bridge the gaps inside a run. The
library's default lets two sessions slow each other twofold when they alternate, and at 5 Hz takes three times the
processor time. Versions that do not know the setting (1.24 for one) only stop spinning at the end of each run."""


class ProviderError(ModelError):
    """A provider other than `cpu` failed while it ran a model that it had loaded: `cpu` may still run it."""


class Session:
    """A model, loaded and warm, that runs on `tensor`, bytes (1, 3, size, size) in RGB, and answers in one kept output
    array; one whose number of boxes depends on the picture answers in a new array each time.
    """

    def __init__(self, path: str, size: SessionSize, provider: str, threads: int, turn: Turn = AT_ONCE) -> None:
        self.turn = turn
        """The context for what is done for no frame."""
        self.provider = provider
        """The name of the provider that runs it."""
        self.fallback: str | None = None
        """Why that is `cpu` and not the one that was asked for; None where it is what was asked for."""
        with _readable(path), turn():
            started = time.perf_counter()
            file = _File.read(path)
            self._sha256 = file.sha256
            self._session = _open(file, provider, threads)
            self.card = read_card(_signature(path, self._session, file.own))
            load_ms = (time.perf_counter() - started) * 1e3
        _check_side(self.card, size)
        self.tensor: NDArray[np.uint8] = np.zeros((1, 3, size, size), np.uint8)
        with _readable(path), turn():
            started = time.perf_counter()
            name = self._session.get_inputs()[0].name
            warm: NDArray[np.floating] = self._session.run(None, {name: self.tensor})[0]
            # Memory of our own: that of `warm` is the library's.
            self._output = warm.copy()
            self._binding = self._bind()
        self._times = (load_ms, (time.perf_counter() - started) * 1e3)

    @property
    def info(self) -> SessionInfo:
        """The file, the provider that runs it, and what loading and the warm-up took."""
        load_ms, warm_ms = self._times
        return SessionInfo(
            path=self.card.path,
            sha256=self._sha256,
            size=self.tensor.shape[-1],
            provider=self.provider,
            load_ms=load_ms,
            warm_ms=warm_ms,
            fallback=self.fallback,
        )

    def run(self) -> NDArray[np.floating]:
        """Run the model on `tensor`; return its output, which the next run may overwrite.

        Raises ModelError when `cpu` fails, and ProviderError when another provider does.
        """
        try:
            if self._binding is None:
                self._output = self._session.run(None, {self._session.get_inputs()[0].name: self.tensor})[0]
            else:
                self._session.run_with_iobinding(self._binding)
        except _UNUSABLE as error:
            raise self._failure(error) from error
        return self._output

    def timed_run(self) -> float:
        """Run once, in its turn, and return the milliseconds it took."""
        with self.turn():
            start = time.perf_counter()
            self.run()
            return (time.perf_counter() - start) * 1e3

    def _failure(self, error: Exception) -> ModelError:
        if self.provider == "cpu":
            return ModelError(f"{self.card.path}: onnxruntime cannot run it: {_first_line(error)}")
        return ProviderError(f"{self.provider} failed while running: {_first_line(error)}")

    def _bind(self) -> ort.IOBinding | None:
        """Bind the tensor and the output's memory; None where the picture decides how many boxes there are: what one
        run has bound would have to do for the next.
        """
        kept, given = self._output, self._session.get_outputs()[0]
        if self.card.layout == "end2end" and not isinstance(given.shape[1], int):
            return None
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._session.get_inputs()[0].name, self.tensor)
        binding.bind_output(given.name, "cpu", 0, kept.dtype.type, kept.shape, kept.ctypes.data)
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
    """Return the names of the providers that onnxruntime has on this machine, itself or by a plugin, `cpu` last."""
    return tuple(name for name, provider in PROVIDERS.items() if _is_there(provider))


def why_absent(name: str) -> str | None:
    """Return why a provider cannot be used here and how to get it; None for one that is installed."""
    provider = PROVIDERS[name]
    if _is_there(provider):
        return None
    if provider.plugin is not None and importlib.util.find_spec(provider.plugin) is not None:
        return f"{name} has no device on this machine, though {provider.plugin} is installed; {provider.advice}"
    return f"{name} is not installed; {provider.advice}"


def runtime_version() -> str:
    """Return onnxruntime's version."""
    return str(ort.__version__)


@dataclass(frozen=True, slots=True)
class _File:
    """A model file as it is loaded: with an input of bytes, and what its own input was if that could be replaced."""

    folder: str
    sha256: str
    content: bytes
    own: OwnInput | None

    @classmethod
    def read(cls, path: str) -> "_File":
        content = Path(path).read_bytes()
        return cls(str(Path(path).parent), hashlib.sha256(content).hexdigest(), *with_byte_input(content))


def _open(file: _File, name: str, threads: int) -> ort.InferenceSession:
    options = _quiet_options()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    # Where the weights are in files of their own, they lie beside the model.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", file.folder)
    provider = PROVIDERS[name]
    if provider.library_name in _BUILT_IN:
        built_in = [(provider.library_name, provider.options(threads))]
        session = ort.InferenceSession(file.content, options, providers=built_in)
    else:
        options.add_provider_for_devices(_plugin_devices(provider), provider.options(threads))
        session = ort.InferenceSession(file.content, options)
    if session.get_providers()[0] != provider.library_name:
        raise RuntimeError(f"provider {name} did not start")
    session.disable_fallback()
    return session


def _is_there(provider: Provider) -> bool:
    return provider.library_name in _BUILT_IN or bool(_plugin_devices(provider))


@cache
def _plugin_devices(provider: Provider) -> list[Any]:
    """Return the processors on which the provider's plugin runs; none without a plugin, or where it cannot be used."""
    if provider.plugin is None or importlib.util.find_spec(provider.plugin) is None:
        return []
    if not hasattr(ort, "register_execution_provider_library"):
        _log.warning("%s needs a newer onnxruntime than %s", provider.plugin, runtime_version())
        return []
    try:
        _register(provider.plugin)
        devices = ort.get_ep_devices()
    except _UNUSABLE as error:
        _log.warning("%s cannot be used: %s", provider.plugin, _first_line(error))
        return []
    cpu = ort.OrtHardwareDeviceType.CPU
    return [one for one in devices if one.ep_name == provider.library_name and one.device.type == cpu]


@cache
def _register(plugin: str) -> None:
    """Make onnxruntime load a plugin, which it takes once in a process."""
    ort.register_execution_provider_library(plugin, importlib.import_module(plugin).get_library_path())


def _quiet_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _SEVERITY_FATAL
    return options


def _signature(path: str, session: ort.InferenceSession, own: OwnInput | None = None) -> Signature:
    """Read what the model says of itself, with the input `own` that the file has where another replaces it; an output
    whose shape is open is learned from one inference.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"{path}: expected one input and one output, found {len(inputs)} and {len(outputs)}")
    given = inputs[0]
    signature = Signature(
        path=path,
        input_name=own.name if own else given.name,
        input_type=own.type if own else given.type,
        input_shape=tuple(given.shape),
        output_name=outputs[0].name,
        output_type=outputs[0].type,
        output_shape=tuple(outputs[0].shape),
        metadata=dict(session.get_modelmeta().custom_metadata_map),
    )
    probe = probe_shape(signature)
    if probe is None:
        return signature
    shape = session.run(None, {given.name: np.zeros(probe, _KINDS[given.type])})[0].shape
    return replace(signature, output_shape=tuple(shape))


def _check_side(card: ModelCard, size: SessionSize) -> None:
    if card.side is not None and card.side != size:
        found = f"expected an input of {size}x{size}, found {card.side}x{card.side}"
        raise ModelError(f"{card.path}: {found}; --model names the 640 of a pair, --model-320 the 320")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn what reading and running a model file can raise into ModelError."""
    try:
        if not Path(path).is_file():
            raise ModelError(f"{path}: expected an ONNX file, found none")
        yield
    except _UNUSABLE as error:
        raise ModelError(f"{path}: onnxruntime cannot use it: {_first_line(error)}") from error
