"""A loaded model with its bound buffers. Everything here is called from the thread that owns the session (the worker's
main thread, or the thread that loads the next pair), one at a time.
"""

import contextlib
import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orion.errors import ModelError
from orion.messages import SessionInfo, SessionSize
from workers.byte_input import OwnInput, with_byte_input
from workers.card import ModelCard, Signature, probe_shape, read_card
from workers.runtime import KINDS, UNUSABLE, InferenceSession, IOBinding, first_line, open_session, open_unprepared
from workers.turns import AT_ONCE, Turn


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
        self.sees = True
        """Whether `cpu` finds somebody in the drawn pictures, where a person is looked for."""
        self.fastest_ms = math.inf
        """Time of the fastest inference on a known picture, which other processes disturbed least."""
        self._threads = threads
        with _readable(path), turn():
            started = time.perf_counter()
            file = _File.read(path)
            self.sha256 = file.sha256
            self._session = open_session(file.content, file.folder, provider, threads)
            self.card = read_card(_signature(path, self._session, file.own))
            load_ms = (time.perf_counter() - started) * 1e3
        _check_side(self.card, size)
        self.tensor: NDArray[np.uint8] = np.zeros((1, 3, size, size), np.uint8)
        with _readable(path), turn():
            started = time.perf_counter()
            self._input = self._session.get_inputs()[0].name
            warm: NDArray[np.floating] = self._session.run(None, {self._input: self.tensor})[0]
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
            sha256=self.sha256,
            size=self.tensor.shape[-1],
            provider=self.provider,
            load_ms=load_ms,
            warm_ms=warm_ms,
            fallback=self.fallback,
            sees=self.sees,
        )

    def run(self) -> NDArray[np.floating]:
        """Run the model on `tensor`; return its output, which the next run may overwrite.

        Raises ModelError when `cpu` fails, and ProviderError when another provider does.
        """
        try:
            if self._binding is None:
                self._output = self._session.run(None, {self._input: self.tensor})[0]
            else:
                # Anew for each run: where a provider has memory of its own, binding is what copies the picture there.
                self._binding.bind_cpu_input(self._input, self.tensor)
                self._session.run_with_iobinding(self._binding)
        except UNUSABLE as error:
            raise self._failure(error) from error
        return self._output

    def plain_heads(self, tensors: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.floating]]:
        """Yield what the file as it was exported answers on `cpu`, without bound buffers, to each of `tensors`, which
        are like `tensor`; each step is made in a turn. Raises ModelError.
        """
        path = self.card.path
        with _readable(path), self.turn():
            content = Path(path).read_bytes()
            if hashlib.sha256(content).hexdigest() != self.sha256:
                raise ModelError(f"{path}: expected the file that was loaded, found another")
            session = open_session(content, str(Path(path).parent), "cpu", self._threads)
        given = session.get_inputs()[0]
        kind = KINDS[given.type]
        for tensor in tensors:
            with _readable(path), self.turn():
                scaled = tensor if kind is np.uint8 else (tensor / np.float32(255)).astype(kind)
                [head] = session.run(None, {given.name: scaled})
            yield head

    def _failure(self, error: Exception) -> ModelError:
        if self.provider == "cpu":
            return ModelError(f"{self.card.path}: onnxruntime cannot run it: {first_line(error)}")
        return ProviderError(f"{self.provider} failed while running: {first_line(error)}")

    def _bind(self) -> IOBinding | None:
        """Bind the output's memory; None where the picture decides how many boxes there are: what one
        run has bound would have to do for the next.
        """
        kept, given = self._output, self._session.get_outputs()[0]
        if self.card.layout == "end2end" and not isinstance(given.shape[1], int):
            return None
        binding = self._session.io_binding()
        binding.bind_output(given.name, "cpu", 0, kept.dtype.type, kept.shape, kept.ctypes.data)
        return binding


def describe(path: str) -> ModelCard:
    """Return what the model file is, without preparing it to run. Raises ModelError when it cannot be used."""
    with _readable(path):
        signature = _signature(path, open_unprepared(path))
    return read_card(signature)


def sha256(path: str) -> str:
    """Return the SHA-256 of the file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _signature(path: str, session: InferenceSession, own: OwnInput | None = None) -> Signature:
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
    shape = session.run(None, {given.name: np.zeros(probe, KINDS[given.type])})[0].shape
    return replace(signature, output_shape=tuple(shape))


def _check_side(card: ModelCard, size: SessionSize) -> None:
    if card.side is not None and card.side != size:
        found = f"expected an input of {size}x{size}, found {card.side}x{card.side}"
        raise ModelError(f"{card.path}: {found}; --model names the 640 of a pair, --model-320 the 320")


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn what reading and running a model file can raise into ModelError."""
    try:
        if not Path(path).is_file():
            raise ModelError(f"{path}: expected an ONNX file, found none")
        yield
    except UNUSABLE as error:
        raise ModelError(f"{path}: onnxruntime cannot use it: {first_line(error)}") from error
