import pytest
from hypothesis import given
from hypothesis import strategies as st

from orion.errors import SourceError
from orion.mjpeg import MAX_PICTURE_BYTES, PartSplitter

PARTS = st.lists(
    st.binary(max_size=300).filter(lambda part: b"--cut" not in part and not part.endswith(b"\r")), max_size=6
)


def body(parts: list[bytes], *, lengths: bool, newline: bytes = b"\r\n") -> bytes:
    pieces = []
    for part in parts:
        length = [b"Content-Length: %d" % len(part)] if lengths else []
        pieces += [newline.join([b"--cut", b"Content-Type: image/jpeg", *length, b"", b""]), part, newline]
    return b"".join(pieces) + b"--cut--" + newline


@given(PARTS, st.booleans(), st.lists(st.integers(1, 40), min_size=1))
def test_parts_come_out_whole_whatever_pieces_they_arrive_in(
    parts: list[bytes], lengths: bool, sizes: list[int]
) -> None:
    data, splitter, found, at = body(parts, lengths=lengths), PartSplitter("cut"), list[bytes](), 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        found += splitter.feed(data[at : at + size])
        at += size
    # Without a length the line end before the boundary cannot be told from the picture's own bytes.
    assert [part if lengths else part.removesuffix(b"\r\n") for part in found] == parts
    assert splitter.ended


@pytest.mark.parametrize("boundary", ["cut", '"cut"', "--cut"])
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_the_ways_that_cameras_write_boundaries_and_lines(boundary: str, newline: bytes) -> None:
    splitter = PartSplitter(boundary)
    assert list(splitter.feed(newline + body([b"one", b"two"], lengths=True, newline=newline))) == [b"one", b"two"]


def test_a_part_may_hold_the_boundary_if_its_length_is_given() -> None:
    assert list(PartSplitter("cut").feed(body([b"a--cutb"], lengths=True))) == [b"a--cutb"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"x" * 70_000, "no boundary"),
        (b"--cut\r\n" + b"X-Y: z\r\n" * 10_000, "a header without an end"),
        (b"--cut\r\nContent-Length: 999999999\r\n\r\n", "too large"),
        (b"--cut\r\n\r\n" + bytes(MAX_PICTURE_BYTES + 1), "without an end"),
    ],
    ids=["no boundary", "endless header", "too large", "endless picture"],
)
def test_garbage_is_refused_before_it_fills_the_memory(data: bytes, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        list(PartSplitter("cut").feed(data))


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_no_bytes_make_the_splitter_fail_otherwise(pieces: list[bytes]) -> None:
    splitter = PartSplitter("c")
    for piece in [b"--c\r\n", *pieces]:
        list(splitter.feed(piece))
