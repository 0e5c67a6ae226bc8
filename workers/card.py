"""What a model file says of itself, and whether the detector can run it: pure, from names, shapes and metadata. Used by
the worker's main thread when it loads, and by the short-lived processes that list models.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orion.errors import ModelError

Layout = Literal["grid", "end2end"]
"""`grid`: (1, 4 + classes, N) centre boxes and scores, needs suppression; `end2end`: (1, K, 6) final boxes."""

Length = int | str | None
Shape = tuple[Length, ...]
"""A tensor's shape in the file: a number is fixed, anything else is dynamic."""

_NAME = re.compile(r"(?P<family>yolo(?:v8|v9|v10|11|12|26))(?P<size>[nsmlx])(?![a-z])", re.IGNORECASE)
_DETAIL = re.compile(r"[-_](fp32|fp16|bf16|int8|uint8|\d{3,4})(?=[-_]|$)", re.IGNORECASE)
_EXPECTED = "a person detector with input (1, 3, S, S) and output (1, 4 + classes, N) or (1, K, 6)"


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's only input and output and its metadata, as the file has them."""

    path: str
    input_name: str
    input_type: str
    input_shape: Shape
    output_name: str
    output_type: str
    output_shape: Shape
    metadata: dict[str, str]

    @property
    def half(self) -> bool:
        """Whether the input is float16."""
        return self.input_type == "tensor(float16)"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model that the detector can run: `side` is its input's, None when that is dynamic."""

    path: str
    family: str
    model_size: str
    side: int | None
    half: bool
    layout: Layout
    names: tuple[str, ...]

    @property
    def model_name(self) -> str:
        """Return family and size as in `yolo11n`; the family alone when it comes in one size."""
        return self.family if self.model_size == "unknown" else f"{self.family}{self.model_size}"

    def class_ids(self, wanted: tuple[str, ...]) -> tuple[int, ...]:
        """Return the class numbers of the names in `wanted`. Raises ModelError that lists the names there are."""
        for name in wanted:
            if name not in self.names:
                known = ", ".join(self.names[:10]) + (", ..." if len(self.names) > 10 else "")
                raise ModelError(f"{self.path}: expected a class named {name!r}, found {known}")
        return tuple(self.names.index(name) for name in wanted)


def read_card(signature: Signature) -> ModelCard:
    """Return what the model is. Raises ModelError with what was expected and what was found."""
    names = _class_names(signature)
    family, model_size = _family(signature)
    side, layout = _side(signature), _layout(signature, names)
    return ModelCard(signature.path, family, model_size, side, signature.half, layout, names)


def probe_shape(signature: Signature) -> tuple[int, int, int, int] | None:
    """Return the shape of a blank input that shows what an open output shape becomes; None when it is fixed.

    The open sides take the size in the metadata, else 640.
    """
    if all(isinstance(length, int) for length in signature.output_shape[1:]):
        return None
    side = _side(signature)
    if side is None:
        written = re.search(r"\d+", signature.metadata.get("imgsz", ""))
        side = int(written[0]) if written else 640
    return (1, 3, side, side)


def _refuse(signature: Signature, found: str) -> ModelError:
    return ModelError(f"{signature.path}: expected {_EXPECTED}, found {found}")


def _side(signature: Signature) -> int | None:
    shape = signature.input_shape
    if (
        len(shape) != 4
        or (isinstance(shape[0], int) and shape[0] != 1)
        or shape[1] != 3
        or not _square(shape[2], shape[3])
    ):
        raise _refuse(signature, f"input {signature.input_name} {shape}")
    if signature.input_type not in {"tensor(float)", "tensor(float16)"}:
        raise _refuse(signature, f"input {signature.input_name} of {signature.input_type}")
    return shape[2] if isinstance(shape[2], int) else None


def _square(height: Length, width: Length) -> bool:
    return height == width if isinstance(height, int) else not isinstance(width, int)


def _layout(signature: Signature, names: tuple[str, ...]) -> Layout:
    shape = signature.output_shape
    if signature.output_type in {"tensor(float)", "tensor(float16)"} and len(shape) == 3:
        if shape[1] == 4 + len(names):
            return "grid"
        if shape[2] == 6:
            return "end2end"
    raise _refuse(signature, f"output {signature.output_name} {shape} with {len(names)} classes")


def _class_names(signature: Signature) -> tuple[str, ...]:
    text = signature.metadata.get("names")
    if text is None:
        raise _refuse(signature, "no class names in its metadata")
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        names = None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(names) != list(range(len(names))):
        raise _refuse(signature, f"class names {text[:80]!r} in its metadata")
    return tuple(str(names[number]) for number in range(len(names)))


def _family(signature: Signature) -> tuple[str, str]:
    """Return family and size: from the description that the exporter embedded, else from the file's name."""
    stem = Path(signature.path).stem
    for text in (signature.metadata.get("description", ""), stem):
        named = _NAME.search(text)
        if named:
            return named["family"].lower(), named["size"].lower()
    return _DETAIL.sub("", stem).replace("_", "-").lower(), "unknown"
