"""Execution providers by the names that the configuration uses: pure. Used by the thread that loads a pair."""

import json
from collections.abc import Callable
from dataclasses import dataclass

Options = dict[str, str]


@dataclass(frozen=True, slots=True)
class Provider:
    """What onnxruntime calls a provider, how to get it, its options for a session with that many threads, and the
    package that brings it as a plugin to an onnxruntime that was built without it.
    """

    library_name: str
    advice: str
    options: Callable[[int], Options]
    plugin: str | None = None


def _none(_threads: int) -> Options:
    return {}


def _openvino(precision: str) -> Provider:
    """Return OpenVINO on the CPU with that precision inside; input and output stay as the model's."""

    def options(threads: int) -> Options:
        hints: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        return {"load_config": json.dumps({"CPU": hints | {"INFERENCE_NUM_THREADS": threads}})}

    return Provider("OpenVINOExecutionProvider", _OPENVINO_ADVICE, options, "onnxruntime_ep_openvino")


_OPENVINO_ADVICE = (
    "on Intel processors: pip install 'onnxruntime>=1.32' 'onnxruntime-ep-openvino>=1.8'; on others: "
    "pip uninstall -y onnxruntime && pip install onnxruntime-openvino"
)
_NVIDIA_ADVICE = "with an NVIDIA card: pip uninstall -y onnxruntime && pip install onnxruntime-gpu"

PROVIDERS = {
    "tensorrt": Provider("TensorrtExecutionProvider", _NVIDIA_ADVICE, _none),
    "cuda": Provider("CUDAExecutionProvider", _NVIDIA_ADVICE, _none),
    "coreml": Provider("CoreMLExecutionProvider", "it is part of onnxruntime on macOS alone", _none),
    "openvino": _openvino("f32"),
    "openvino-bf16": _openvino("bf16"),
    "cpu": Provider("CPUExecutionProvider", "it is part of every onnxruntime", _none),
}
"""Every provider that can be asked for by name, beside `auto`."""
