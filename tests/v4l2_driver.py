"""The driver's side of a Video4Linux camera for programs that run under umockdev: answers their ioctls, and shows one
grey after another. Run by the system's Python; `argv` is width, height and pictures a second. Prints the folder of its
device tree, obeys lines of stdin (`busy`, `free`, `plug`, `unplug`) and prints each when it is done; ends with stdin.
"""

import errno
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

import gi  # type: ignore[import-not-found]

gi.require_version("UMockdev", "1.0")
from gi.repository import GLib, UMockdev  # type: ignore[import-not-found]  # noqa: E402

NODE: Final = "/dev/video0"
_BUFFERS: Final = 8
_PAGE: Final = 4096
_YUYV: Final = int.from_bytes(b"YUYV", "little")
_CAPTURES, _STREAMS, _SAYS_OF_DEVICE = 0x1, 0x4000000, 0x80000000
_MAPPED, _MONOTONIC = 0x1, 0x2000
_NO_FIELD, _SRGB, _MMAP, _HAS_RATE = 1, 8, 1, 0x1000

# The numbers of <linux/videodev2.h>, and there the structures whose offsets are below, those of 64-bit machines.
QUERYCAP, G_FMT, S_FMT, REQBUFS, QUERYBUF, QBUF, DQBUF = 0, 4, 5, 8, 9, 15, 17
STREAMON, STREAMOFF, G_PARM, S_PARM, G_INPUT = 18, 19, 21, 22, 38


def grey(index: int) -> int:
    """Return the luma of picture `index`, 16 to 235 as in video."""
    return 40 + index % 20 * 8


class Driver(UMockdev.IoctlBase):  # type: ignore[misc]
    """Answers one program at a time, as a camera does."""

    def __init__(self, node: Path, width: int, height: int, fps: int) -> None:
        super().__init__()
        self.busy = False
        self.plugged = True
        self._node = node
        self._size = width, height
        self._fps = fps
        self._bytes = width * height * 2
        self._stride = -(-self._bytes // _PAGE) * _PAGE
        self._queued: list[int] = []
        self._shown = 0
        self._answers = {
            QUERYCAP: self._query,
            G_FMT: self._format,
            S_FMT: self._format,
            REQBUFS: self._request,
            QUERYBUF: self._buffer,
            QBUF: self._queue,
            STREAMON: self._accept,
            STREAMOFF: self._stop,
            G_PARM: self._rate,
            S_PARM: self._rate,
            G_INPUT: self._accept,
        }

    def plug(self) -> None:
        """Make the node, with memory for the pictures in it."""
        self._node.touch()
        os.truncate(self._node, _BUFFERS * self._stride)
        self.plugged = True

    def unplug(self) -> None:
        """Take the node away; who has it open gets errors from now on."""
        self._node.unlink()
        self.plugged = False

    def do_handle_ioctl(self, client: Any) -> bool:
        """Answer a call; `True` says that it is, or will be, answered."""
        request = client.get_request()
        number, size = request & 0xFF, request >> 16 & 0x3FFF
        argument = client.get_arg().resolve(0, size)
        if number == DQBUF:
            GLib.timeout_add(1000 // self._fps, self._dequeue, client, argument)
            return True
        data = bytearray(argument.retrieve())
        answer = self._answers.get(number)
        code = errno.ENODEV if not self.plugged else errno.ENOTTY if answer is None else answer(data)
        self._complete(client, argument, data, code)
        return True

    def _complete(self, client: Any, argument: Any, data: bytearray, code: int) -> None:
        if not code:
            argument.update(0, list(data))
        client.complete(-1 if code else 0, code)

    def _query(self, data: bytearray) -> int:
        does = _CAPTURES | _STREAMS
        struct.pack_into("16s32s32s", data, 0, b"stand-in", b"Stand-in", b"platform")
        struct.pack_into("3I", data, 80, 0x60000, does | _SAYS_OF_DEVICE, does)
        return 0

    def _format(self, data: bytearray) -> int:
        width, height = self._size
        struct.pack_into("7I", data, 8, width, height, _YUYV, _NO_FIELD, width * 2, self._bytes, _SRGB)
        return errno.EBUSY if self.busy else 0

    def _request(self, data: bytearray) -> int:
        struct.pack_into("I", data, 0, min(struct.unpack_from("I", data)[0], _BUFFERS))
        return 0

    def _buffer(self, data: bytearray) -> int:
        struct.pack_into("QI", data, 64, struct.unpack_from("I", data)[0] * self._stride, self._bytes)
        return 0

    def _queue(self, data: bytearray) -> int:
        self._queued.append(struct.unpack_from("I", data)[0])
        return 0

    def _accept(self, _data: bytearray) -> int:
        return 0

    def _stop(self, _data: bytearray) -> int:
        self._queued.clear()
        return 0

    def _rate(self, data: bytearray) -> int:
        struct.pack_into("4I", data, 4, _HAS_RATE, 0, 1, self._fps)
        return 0

    def _dequeue(self, client: Any, argument: Any) -> bool:
        """Show the next picture, a period after it was asked for; `False` takes the timer away."""
        data = bytearray(argument.retrieve())
        if not self.plugged or not self._queued:
            self._complete(client, argument, data, errno.EAGAIN if self.plugged else errno.ENODEV)
            return False
        index, width, height = self._queued.pop(0), *self._size
        with self._node.open("r+b") as buffers:
            buffers.seek(index * self._stride)
            buffers.write(bytes([grey(self._shown), 128]) * (width * height))
        stamp_s = time.monotonic()
        stamp = int(stamp_s), int(stamp_s % 1 * 1e6)
        struct.pack_into("5I4x2q", data, 0, index, _CAPTURES, self._bytes, _MAPPED | _MONOTONIC, _NO_FIELD, *stamp)
        struct.pack_into("2IQI", data, 56, self._shown, _MMAP, index * self._stride, self._bytes)
        self._shown += 1
        self._complete(client, argument, data, 0)
        return False


def main() -> None:
    """Run the driver until stdin ends."""
    bed = UMockdev.Testbed.new()
    bed.add_from_string(f"P: /devices/platform/camera\nN: video0=00\nE: DEVNAME={NODE}\nE: SUBSYSTEM=video4linux\n")
    driver = Driver(Path(bed.get_root_dir() + NODE), *map(int, sys.argv[1:]))
    driver.plug()
    bed.attach_ioctl(NODE, driver)
    loop = GLib.MainLoop()

    def obey(*_: object) -> bool:
        order = sys.stdin.readline().strip()
        if not order:
            loop.quit()
        elif order in {"busy", "free"}:
            driver.busy = order == "busy"
        else:
            {"plug": driver.plug, "unplug": driver.unplug}[order]()
        sys.stdout.write(f"{order}\n")
        sys.stdout.flush()
        return bool(order)

    GLib.io_add_watch(0, GLib.IO_IN | GLib.IO_HUP, obey)
    sys.stdout.write(f"{bed.get_root_dir()}\n")
    sys.stdout.flush()
    loop.run()


if __name__ == "__main__":
    main()
