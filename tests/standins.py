"""Providers that run and do not see, at the place where onnxruntime's sessions are opened: each is a real session with
one fault between it and Orion. `standing_in` makes one the provider of a name that is not installed here.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.losing import Around
from workers import choice, runtime, session


class _Binding(Around):
    """A binding that hands a copy of the input on, made when it is bound, as a plugin's does."""

    def bind_cpu_input(self, name: str, tensor: Any) -> None:
        self._inner.bind_cpu_input(name, tensor.copy())


class Copying(Around):
    """What a plugin does: it sees the picture as it was when it was bound."""

    def io_binding(self) -> _Binding:
        return _Binding(self._inner.io_binding())

    def run_with_iobinding(self, binding: _Binding) -> None:
        self._inner.run_with_iobinding(binding._inner)


class _Kept(Around):
    """A binding that tells where the output goes."""

    output: Any = None

    def bind_output(self, name: str, device: str, number: int, kind: Any, shape: Any, address: int) -> None:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        bytes_there = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        self.output = bytes_there.view(kind).reshape(shape)
        self._inner.bind_output(name, device, number, kind, shape, address)


class Replacing(Around):
    """A session whose answers are replaced by others in the memory that is bound."""

    def io_binding(self) -> _Kept:
        return _Kept(self._inner.io_binding())

    def run_with_iobinding(self, binding: _Kept) -> None:
        self._inner.run_with_iobinding(binding._inner)
        self.replace(binding.output)

    def replace(self, output: Any) -> None:
        raise NotImplementedError


class Zeros(Replacing):
    """Answers zeros."""

    def replace(self, output: Any) -> None:
        output[:] = 0


class First(Replacing):
    """Answers every picture as the first that it was given."""

    _first: Any = None

    def replace(self, output: Any) -> None:
        if self._first is None:
            self._first = output.copy()
        output[:] = self._first


class Late(Replacing):
    """Answers every picture as the one before."""

    _before: Any = None

    def replace(self, output: Any) -> None:
        now = output.copy()
        output[:] = now if self._before is None else self._before
        self._before = now


class Inventing(Replacing):
    """Finds, beside what there is, somebody who is not there."""

    def replace(self, output: Any) -> None:
        output[0, :, -1] = [50, 60, 40, 80, 0.9]


def going_blind(is_blind: Callable[[], bool]) -> type[Replacing]:
    """Return the sessions that answer zeros from when `is_blind` says so."""

    class Going(Replacing):
        def replace(self, output: Any) -> None:
            if is_blind():
                output[:] = 0

    return Going


def standing_in(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[[Any], Any], name: str = "openvino", *, cpu: bool = False
) -> None:
    """Let the provider of that name be one of `kind` around a session on `cpu`; with `cpu`, Orion's sessions on that
    too, whose input is bytes.
    """
    real = runtime.open_session

    def opened(content: bytes, folder: str, asked: str, threads: int) -> Any:
        inner = real(content, folder, "cpu", threads)
        own = cpu and inner.get_inputs()[0].type == "tensor(uint8)"
        return kind(inner) if asked == name or own else inner

    monkeypatch.setattr(session, "open_session", opened)
    monkeypatch.setattr(choice, "installed_providers", lambda: (name, "cpu"))
    monkeypatch.setattr(choice, "why_absent", lambda asked: None)
