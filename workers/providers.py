"""Execution providers by the names that the configuration uses: pure. Used by the thread that loads a pair."""

import json
from collections.abc import Callable
from dataclasses import dataclass

Options = dict[str, str]


@dataclass(frozen=True, slots=True)
class Provider:
    """What onnxruntime calls a provider, and its options for a session with that many threads."""

    library_name: str
    options: Callable[[int], Options]


def _none(_threads: int) -> Options:
    return {}


def _openvino(precision: str) -> Callable[[int], Options]:
    """Return the options for OpenVINO on the CPU with that precision inside; input and output stay as the model's."""

    def options(threads: int) -> Options:
        hints = {"CPU": {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}}
        return {"device_type": "CPU", "num_of_threads": str(threads), "load_config": json.dumps(hints)}

    return options


PROVIDERS = {
    "tensorrt": Provider("TensorrtExecutionProvider", _none),
    "cuda": Provider("CUDAExecutionProvider", _none),
    "coreml": Provider("CoreMLExecutionProvider", _none),
    "openvino": Provider("OpenVINOExecutionProvider", _openvino("f32")),
    "openvino-bf16": Provider("OpenVINOExecutionProvider", _openvino("bf16")),
    "cpu": Provider("CPUExecutionProvider", _none),
}
"""Every provider that can be asked for by name, beside `auto`."""
