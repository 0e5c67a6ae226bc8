"""What cameras do wrong, by real servers: each fault is told as an event within the time that docs/operations.md names,
heals without a restart, and holds no other stream up.
"""

import json
import socket
from pathlib import Path

from orion.capture import CaptureSettings
from tests.harness import frame_sizes, scripted_workers, supervised
from tests.servers import BlackHole, RtspServer
from tests.videos import write_video
from tests.watching import LOST_WITHIN_S, check_not_held_up, watched


def test_what_does_not_answer_is_told_and_delays_no_other(tmp_path: Path) -> None:
    with RtspServer(write_video(tmp_path / "camera.mp4", 20), login=("viewer", "right")) as server, BlackHole() as hole:
        closed = socket.create_server(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        sources = (
            f"rtsp://127.0.0.1:{port}/refused",
            f"rtsp://127.0.0.1:{hole.port}/silent",
            f"rtsp://viewer:wrong@127.0.0.1:{server.port}/stream",
            "demo:160x120@20",
        )
        with watched(tmp_path, *sources) as running:
            reasons = [running.await_event("stream_lost", LOST_WITHIN_S, f"cam{n}")["reason"] for n in range(3)]
            # Attempts of one camera, half a second apart, do not wait for those of another that take five.
            running.await_event("stream_lost", LOST_WITHIN_S, count=12)
            running.await_results(20, "cam3")
            check_not_held_up(running, "cam3")
            # What is held in a native call is let go, so that the test's own threads can end.
            hole.close()
    for reason, what in zip(reasons, ("Connection refused", "no answer in time", "user or password"), strict=True):
        assert what in reason
    assert "wrong@" not in json.dumps(running.collected.events)


def test_a_server_that_is_silent_for_a_while_is_lost_and_restored(tmp_path: Path) -> None:
    with (
        RtspServer(write_video(tmp_path / "camera.mp4", 900)) as server,
        watched(tmp_path, server.uri, "demo:160x120@20") as running,
    ):
        running.await_results(5)
        server.freeze()
        assert "sent no picture for 5 s" in running.await_event("stream_lost", LOST_WITHIN_S)["reason"]
        server.thaw()
        running.await_event("stream_restored", LOST_WITHIN_S)
        running.await_results(5)
        check_not_held_up(running, "cam1")


def test_an_rtsp_stream_that_changes_size_within_goes_on_in_the_new_size(tmp_path: Path) -> None:
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(write_video(tmp_path / f"{w}.ts", 60, w, w * 3 // 4).read_bytes() for w in (320, 640)))
    elements = "tsdemux ! mpeg4videoparse ! rtpmp4vpay config-interval=1"
    with RtspServer(both, elements=elements) as server, watched(tmp_path, server.uri) as running:
        running.await_results(90)
        sizes = frame_sizes(running.collected.results)
        assert list(dict.fromkeys(sizes)) == [(320, 240), (640, 480)]
        assert sizes == sorted(sizes)
        assert running.collected.events[1:] == []


def test_a_file_that_ends_within_a_picture_ends_the_stream(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 30).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    with supervised(scripted_workers([""], tmp_path), (str(cut),), capture=CaptureSettings(every_frame=True)) as (
        supervisor,
        collected,
    ):
        supervisor.run()
        assert supervisor.stop_reason == "the sources have ended"
    assert 5 < len(collected.results) < 30
