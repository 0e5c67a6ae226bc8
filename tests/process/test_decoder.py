"""What FFmpeg's decoders are asked for beyond plain files: turned pictures, new codecs, and pictures that are none."""

import struct
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks import footage
from orion.decoder import Decoder, DecoderError
from orion.messages import Pixels
from tests.videos import jpeg, picture, write_video


def encode(path: Path, sizes: Iterable[tuple[int, int]], codec: str = "mpeg4", container: str = "mpegts") -> Path:
    return footage.write(path, (picture(number, *size) for number, size in enumerate(sizes)), codec, container)


def sizes_of(path: Path) -> list[tuple[int, int]]:
    return [(picture.shape[1], picture.shape[0]) for _, _, picture in footage.frames(path)]


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["upright", "right", "upside down", "left"],
)
def test_a_picture_is_upright_whichever_way_the_camera_was_held(
    matrix: tuple[int, int, int, int], turned: int, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "v.mp4", 2)
    data = bytearray(path.read_bytes())
    # The header of a track (ISO/IEC 14496-12, 8.3.2) ends with a 3x3 matrix, then the size.
    at = data.index(b"tkhd") + 44
    a, b, c, d = (number << 16 for number in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    decoder = Decoder(str(path))
    expected = np.rot90(picture(0, 320, 240), turned)
    assert (decoder.info.height, decoder.info.width) == expected.shape[:2]
    dst: Pixels = np.zeros(expected.shape, np.uint8)
    assert decoder.advance(5)
    assert decoder.picture(dst) is dst
    assert np.abs(dst.astype(int) - expected).mean() < 4
    decoder.close()


@pytest.mark.parametrize("codec", ["h264", "hevc", "libsvtav1", "ffv1"])
def test_codecs_of_today_are_read(codec: str, tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mkv", [(320, 240)] * 5, codec, "matroska")
    assert sizes_of(path) == [(320, 240)] * 5


def test_one_picture_is_a_video(tmp_path: Path) -> None:
    path = tmp_path / "v.jpg"
    path.write_bytes(jpeg(3, 320, 240))
    assert sizes_of(path) == [(320, 240)]


def test_a_new_size_counts_from_its_first_picture_but_not_if_it_is_the_only_one(tmp_path: Path) -> None:
    small, large, odd = (160, 120), (320, 240), (64, 48)
    path = encode(tmp_path / "v.ts", [small] * 5 + [large] * 2 + [small] * 4 + [odd] + [small] * 5)
    assert sizes_of(path) == [small] * 5 + [large] * 2 + [small] * 9
    last = encode(tmp_path / "last.ts", [small] * 5 + [odd])
    assert sizes_of(last) == [small] * 5 + [odd]


def test_a_packet_that_cannot_be_decoded_ends_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 20, codec="MJPG")
    data = bytearray(path.read_bytes())
    heads = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xc0"]
    # A sampling of colours that no decoder has: not the usual error, and the first packet's is the stream's own.
    data[heads[10] + 11] = 0x43
    path.write_bytes(data)
    assert sizes_of(path) == [(320, 240)] * 19


def test_pictures_with_errors_count_from_the_first_where_they_follow_each_other(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.avi", [(320, 240)] * 20, container="avi")
    data = bytearray(path.read_bytes())
    packets = [at for at in range(len(data)) if data[at : at + 4] == b"00dc" and data[at + 8 : at + 11] == b"\0\0\1"]
    for at in packets:
        middle = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little") // 2
        data[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(data)
    decoder = Decoder(str(path))
    assert decoder._present.is_corrupt
    decoder.close()
    assert sizes_of(path) == [(320, 240)] * 20


def test_a_codec_that_nobody_knows_is_told(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 5, codec="MJPG")
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZZZ"))
    with pytest.raises(DecoderError, match="no video in it that can be decoded"):
        Decoder(str(path))


def test_what_holds_no_picture_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", 8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(DecoderError, match="no video in it that can"):
        Decoder(str(path))
    garbage = encode(tmp_path / "v.ts", [(160, 120)] * 5)
    packets = bytearray(garbage.read_bytes())
    random = np.random.default_rng(0)
    # The heads of the transport packets stay, so that it is a stream, of pictures that are none.
    for at in range(188 * 3, len(packets), 188):
        packets[at + 20 : at + 188] = random.bytes(168)
    garbage.write_bytes(packets)
    with pytest.raises(DecoderError, match="no picture in it that can"):
        Decoder(str(garbage))
