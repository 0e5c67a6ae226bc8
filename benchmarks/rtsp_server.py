"""A live H.264 camera over RTSP by GStreamer, run by the interpreter that has its bindings, as a process of its own, by
`benchmarks.rtsp`. Its arguments are width, height and rate. Writes its port, then obeys lines on stdin: `picture NAME`
(a pattern of videotestsrc), `every N` (sends one picture of N), `size WIDTHxHEIGHT`, `password WORD` (of the user
viewer). Ends with stdin.
"""

import itertools
import sys
import threading
from typing import Any

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402

USER, PATH = "viewer", "/stream"
_ROLE = "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true;"


class Server:
    """The camera; one pipeline for all its clients, as in cameras."""

    def __init__(self, width: int, height: int, fps: int) -> None:
        self._picture, self._every = "snow", 1
        self._size, self._fps = (width, height), fps
        self._password = self._basic = ""
        self._source: Any = None
        self._format: Any = None
        self._numbers = itertools.count()
        self._server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
        self._auth, self._token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        self._token.set_string("media.factory.role", USER)
        factory = GstRtspServer.RTSPMediaFactory()
        factory.add_role_from_structure(Gst.Structure.from_string(_ROLE)[0])
        factory.set_shared(True)
        factory.set_launch(
            "( videotestsrc name=source is-live=true ! capsfilter name=format "
            f"! identity name=gate ! openh264enc gop-size={fps} rate-control=off complexity=low "
            "! h264parse config-interval=1 ! rtph264pay name=pay0 )"
        )
        factory.connect("media-configure", self._configure)
        self._server.get_mount_points().add_factory(PATH, factory)
        if not self._server.attach(None):
            sys.exit("no port")
        self.port = self._server.get_bound_port()

    def _configure(self, _factory: object, media: Any) -> None:
        pipeline = media.get_element()
        self._source = pipeline.get_by_name("source")
        self._source.set_property("pattern", self._picture)
        self._format = pipeline.get_by_name("format")
        self._apply_size()
        gate = pipeline.get_by_name("gate").get_static_pad("src")
        gate.add_probe(Gst.PadProbeType.BUFFER, self._pass)

    def _apply_size(self) -> None:
        width, height = self._size
        text = f"video/x-raw,width={width},height={height},framerate={self._fps}/1"
        self._format.set_property("caps", Gst.Caps.from_string(text))

    def _pass(self, _pad: object, _info: object) -> Any:
        dropped = next(self._numbers) % self._every
        return Gst.PadProbeReturn.DROP if dropped else Gst.PadProbeReturn.OK

    def obey(self, line: str) -> bool:
        """Do what a line says; False, so that it is done once."""
        order, _, word = line.strip().partition(" ")
        if order == "picture":
            self._picture = word
            if self._source is not None:
                self._source.set_property("pattern", word)
        elif order == "every":
            self._every = int(word)
        elif order == "size":
            width, _, height = word.partition("x")
            self._size = int(width), int(height)
            if self._format is not None:
                self._apply_size()
        elif order == "password":
            self._ask_for(word)
        return False

    def _ask_for(self, password: str) -> None:
        if password == self._password:
            return
        if self._basic:
            self._auth.remove_basic(self._basic)
        self._password, self._basic = password, GstRtspServer.RTSPAuth.make_basic(USER, password)
        self._auth.add_basic(self._basic, self._token)
        self._server.set_auth(self._auth)


def main() -> None:
    """Serve until stdin ends."""
    Gst.init(None)
    server, loop = Server(*map(int, sys.argv[1:4])), GLib.MainLoop()
    print(server.port, flush=True)

    def listen() -> None:
        for line in sys.stdin:
            GLib.idle_add(server.obey, line)
        loop.quit()

    threading.Thread(target=listen, name="stdin", daemon=True).start()
    loop.run()
