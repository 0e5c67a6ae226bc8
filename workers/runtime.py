"""The one module that imports onnxruntime: which providers it has here, and how a session is opened. Everything here is
called from the thread that owns or loads the session, one at a time.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

# Since 1.32 the library starts a thread when it is imported that reports its use to its makers, under an id that it
# keeps in ~/.cache. Nothing leaves the machine of a care room unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from workers.providers import PROVIDERS, Provider

_log = logging.getLogger(__name__)

InferenceSession: TypeAlias = ort.InferenceSession
IOBinding: TypeAlias = ort.IOBinding

_SEVERITY_FATAL = 4
_STATE = ort.capi.onnxruntime_pybind11_state
UNUSABLE: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_STATE).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    OSError,
    ImportError,
)
"""What reading or running a model, or loading a plugin, can raise: onnxruntime's dozen classes have no common root."""

_BUILT_IN = frozenset(ort.get_available_providers())
"""The providers of this build; plugins come to the library's own list later."""

KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""The types of input that can be fed, by onnxruntime's words for them."""

_SPIN_US = 100
"""How long an inference thread looks for more work before it sleeps: long enough to bridge the gaps inside a run. The
library's default lets two sessions slow each other twofold when they alternate, and at 5 Hz takes three times the
processor time. Versions that do not know the setting (1.24 for one) only stop spinning at the end of each run."""


def open_session(content: bytes, folder: str, name: str, threads: int) -> InferenceSession:
    """Return the model `content`, whose file lies in `folder`, ready to run on the provider of that name. Raises any of
    UNUSABLE.
    """
    options = _quiet_options()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    # Where the weights are in files of their own, they lie beside the model.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    provider = PROVIDERS[name]
    if provider.library_name in _BUILT_IN:
        built_in = [(provider.library_name, provider.options(threads))]
        session = ort.InferenceSession(content, options, providers=built_in)
    else:
        options.add_provider_for_devices(_plugin_devices(provider), provider.options(threads))
        session = ort.InferenceSession(content, options)
    if session.get_providers()[0] != provider.library_name:
        raise RuntimeError(f"provider {name} did not start")
    session.disable_fallback()
    return session


def open_unprepared(path: str) -> InferenceSession:
    """Return the model file without what makes it fast, which takes the least time to open. Raises any of UNUSABLE."""
    options = _quiet_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


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


def build() -> str:
    """Return what tells this build of onnxruntime, its plugins included, from any other."""
    told = [str(ort.__version__), hashlib.sha256(ort.get_build_info().encode()).hexdigest()[:16]]
    plugins = sorted({provider.plugin for provider in PROVIDERS.values() if provider.plugin is not None})
    return " ".join([*told, *(f"{plugin}={_version(plugin)}" for plugin in plugins)])


def processor() -> str:
    """Return the processor's name and what tells its abilities, since a cache folder may serve several machines, and
    a virtual machine has the same name wherever it runs.
    """
    told: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())
    abilities = told.get("flags", told.get("Features", ""))
    name = told.get("model name", platform.machine())
    return f"{name} {hashlib.sha256(abilities.encode()).hexdigest()[:8]} {os.cpu_count()}"


def first_line(error: Exception) -> str:
    """Return the part of what onnxruntime says that tells what is wrong."""
    return str(error).strip().partition("\n")[0]


def _version(plugin: str) -> str:
    try:
        return metadata.version(plugin)
    except metadata.PackageNotFoundError:
        return "none"


def _is_there(provider: Provider) -> bool:
    return provider.library_name in _BUILT_IN or bool(_plugin_devices(provider))


@cache
def _plugin_devices(provider: Provider) -> list[Any]:
    """Return the processors on which the provider's plugin runs; none without a plugin, or where it cannot be used."""
    if provider.plugin is None or importlib.util.find_spec(provider.plugin) is None:
        return []
    if not hasattr(ort, "register_execution_provider_library"):
        _log.warning("%s needs a newer onnxruntime than %s", provider.plugin, ort.__version__)
        return []
    try:
        _register(provider.plugin)
        devices = ort.get_ep_devices()
    except UNUSABLE as error:
        _log.warning("%s cannot be used: %s", provider.plugin, first_line(error))
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
