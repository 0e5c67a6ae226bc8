"""Gives a model file an input of bytes: the pixels as they are, 0..255, which its first node scales to the 0..1 that
the model was exported for. So a frame's tensor has a quarter of the memory, and nothing outside the session scales it.
Pure, bytes in and bytes out; run by the thread that loads a session.

The file is a protobuf message of fields, each a number, a kind and a content (protobuf.dev, "Encoding");
only the graph's input changes, and two or three fields are added. Field numbers are those of onnx/onnx.proto.
"""

from collections.abc import Iterator
from typing import NamedTuple

PIXELS = "orion.pixels"
"""The input that takes the place of the model's own."""

_UNIT, _SCALE = "orion.unit", "orion.scale"
_SCALE_VALUE = b"\x81\x80\x80\x3b"
"""1/255 as a little-endian float32."""

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT = 1, 5, 11
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TYPE = 1, 3, 20
_TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 2, 8, 9
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_ELEMENT = 1
_FLOAT, _BYTE, _HALF = 1, 2, 10
_ATTRIBUTE_IS_INT = 2
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5


class OwnInput(NamedTuple):
    """The input that a model had: its name, and its type in onnxruntime's words."""

    name: str
    type: str


class _Field(NamedTuple):
    """One field of a message: its number, its content (a varint's value is in `value`), and both with their head."""

    number: int
    content: memoryview
    value: int
    whole: memoryview


def with_byte_input(model: bytes) -> tuple[bytes, OwnInput | None]:
    """Return the model with `PIXELS`, bytes in the shape of its only input, in that one's place, and what that was. A
    model without just one input of float32 or float16, or no model at all, comes back as it is, with None.
    """
    try:
        return _rewritten(memoryview(model))
    except ValueError:
        return model, None


def _rewritten(model: memoryview) -> tuple[bytes, OwnInput]:
    fields = list(_fields(model))
    [graph] = [field.content for field in fields if field.number == _MODEL_GRAPH]
    edited, own = _edit_graph(graph)
    parts: list[bytes | memoryview] = []
    for field in fields:
        if field.number == _MODEL_GRAPH:
            parts += [_head(_MODEL_GRAPH, sum(map(len, edited))), *edited]
        else:
            parts.append(field.whole)
    return b"".join(parts), own


def _edit_graph(graph: memoryview) -> tuple[list[bytes | memoryview], OwnInput]:
    """Return the pieces of the graph with another input, weights uncopied, and the input that it had."""
    fields = list(_fields(graph))
    # Older files list their weights among the inputs too.
    weights = {_text(field.content, _TENSOR_NAME) for field in fields if field.number == _GRAPH_INITIALIZER}
    given = [field for field in fields if field.number == _GRAPH_INPUT]
    [field] = [field for field in given if _text(field.content, _VALUE_NAME) not in weights]
    name = _text(field.content, _VALUE_NAME)
    value, element = _edit_value(field.content)
    kind = {_FLOAT: "tensor(float)", _HALF: "tensor(float16)"}.get(element)
    if kind is None:
        raise ValueError(f"an input of another type: {element}")
    rest = [_sized(_GRAPH_INPUT, value) if other is field else other.whole for other in fields]
    # Nodes come in the order of their work.
    return [*_scaling(name, half=element == _HALF), *rest], OwnInput(name, kind)


def _scaling(name: str, *, half: bool) -> list[bytes]:
    """Return the fields of a graph that make `name`, in 0..1, of the input of bytes."""
    scale = _number(_TENSOR_TYPE, _FLOAT) + _named(_TENSOR_NAME, _SCALE) + _sized(_TENSOR_RAW, _SCALE_VALUE)
    scaled = _UNIT if half else name
    fields = [
        _sized(_GRAPH_INITIALIZER, scale),
        _sized(_GRAPH_NODE, _node("DequantizeLinear", [PIXELS, _SCALE], scaled)),
    ]
    if half:
        # float16 as the operator's own answer needs a younger set of operators than most exports name.
        to = (
            _named(_ATTRIBUTE_NAME, "to") + _number(_ATTRIBUTE_INT, _HALF) + _number(_ATTRIBUTE_TYPE, _ATTRIBUTE_IS_INT)
        )
        fields.append(_sized(_GRAPH_NODE, _node("Cast", [scaled], name) + _sized(_NODE_ATTRIBUTE, to)))
    return fields


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    named = [_named(_NODE_INPUT, name) for name in inputs]
    return b"".join(
        [
            *named,
            _named(_NODE_OUTPUT, output),
            _named(_NODE_NAME, f"orion.{operator}"),
            _named(_NODE_OPERATOR, operator),
        ]
    )


def _edit_value(value: memoryview) -> tuple[bytes, int]:
    """Return an input's description with its name and element type changed, and the element type that it had."""
    tensor = _child(_child(value, _VALUE_TYPE), _TYPE_TENSOR)
    [element] = [field.value for field in _fields(tensor) if field.number == _TENSOR_ELEMENT]
    shape = b"".join(field.whole for field in _fields(tensor) if field.number != _TENSOR_ELEMENT)
    kind = _sized(_TYPE_TENSOR, _number(_TENSOR_ELEMENT, _BYTE) + shape)
    return _named(_VALUE_NAME, PIXELS) + _sized(_VALUE_TYPE, kind), element


def _child(message: memoryview, number: int) -> memoryview:
    [content] = [field.content for field in _fields(message) if field.number == number]
    return content


def _text(message: memoryview, number: int) -> str:
    return "".join(str(field.content, "utf-8") for field in _fields(message) if field.number == number)


def _fields(message: memoryview) -> Iterator[_Field]:
    """Yield the fields of a message. Raises ValueError where it is none, or ends inside a field."""
    start = 0
    while start < len(message):
        key, place = _varint(message, start)
        number, kind = key >> 3, key & 7
        value = 0
        if kind == _VARINT:
            value, end = _varint(message, place)
        elif kind == _SIZED:
            length, place = _varint(message, place)
            end = place + length
        elif kind in {_EIGHT_BYTES, _FOUR_BYTES}:
            end = place + (8 if kind == _EIGHT_BYTES else 4)
        else:
            raise ValueError(f"a field of kind {kind}")
        if end > len(message):
            raise ValueError("the message ends inside a field")
        yield _Field(number, message[place:end], value, message[start:end])
        start = end


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number at `place`, seven bits a byte, the lowest first, and the place after it."""
    value = 0
    for count, byte in enumerate(message[place : place + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise ValueError("a number without an end")


def _number(field: int, value: int) -> bytes:
    return _packed(field << 3 | _VARINT) + _packed(value)


def _head(field: int, length: int) -> bytes:
    return _packed(field << 3 | _SIZED) + _packed(length)


def _sized(field: int, content: bytes) -> bytes:
    return _head(field, len(content)) + content


def _named(field: int, text: str) -> bytes:
    return _sized(field, text.encode())


def _packed(value: int) -> bytes:
    """Return a number in seven bits a byte, the lowest first."""
    packed = bytearray()
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)
