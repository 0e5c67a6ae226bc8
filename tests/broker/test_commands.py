"""Commands to whole runs over a real broker: each is answered after its effect, and a refused one changes nothing."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.mosquitto import Mosquitto
from tests.brokers import Listener
from tests.instances import Instance, running, until
from tests.operators import Operator, balanced
from tests.videos import write_video

SMALL = "demo:320x240@20"
CAM = "sensor-8"


@contextmanager
def operated(broker: Mosquitto, folder: Path, *options: str, **env: str) -> Iterator[tuple[Operator, Instance]]:
    with (
        Listener(broker.port) as listener,
        running(
            folder, *(options or ("--source", SMALL)), instance_id=CAM, broker=f"mqtt://127.0.0.1:{broker.port}", **env
        ) as instance,
    ):
        operator = Operator(listener, CAM)
        until(lambda: operator.events("ready"), f"ready; {instance.errors()}")
        yield operator, instance
        if instance.process.poll() is None:
            assert all(balanced(stream) for stream in operator.status()["streams"])
            assert instance.stop() == 0, instance.errors()
        assert instance.segments() == []


def configured(folder: Path, **changes: Any) -> tuple[str, str]:
    file = folder / "orion.yaml"
    file.write_text(yaml.safe_dump({"streams": [{"stream_id": "cam0", "source": SMALL}]} | changes))
    return "--config", str(file)


def test_status_pause_rate_and_restart(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with operated(mosquitto, tmp_path) as (operator, _):
        status = operator.status()
        assert (status["instance_id"], status["running"], status["paused"]) == (CAM, True, False)
        assert status["changed"] == []
        assert status["config"]["streams"][0]["source"] == SMALL
        assert status["emitter"]["connected"]
        told = {"pid", "state", "restarts", "model_size", "avg_latency_ms", "last_seen_at"}
        assert told <= status["workers"][0].keys()

        answer = operator.ask("pause_inference")
        assert (answer["status"], answer["data"]) == ("paused", {"inference_active": False})
        before = operator.stream()
        assert operator.status()["paused"]
        until(lambda: operator.stream()["dropped"]["paused"] >= before["dropped"]["paused"] + 5, "paused frames")
        during = operator.stream()
        assert during["completed"] == before["completed"]
        assert operator.do("resume_inference") == {"inference_active": True}
        first = operator.await_more(3)[0]
        assert first["data"]["metadata"]["inference"] == "full", "the first frame after a pause is seen whole"

        assert operator.do("set_inference_rate", rate_hz=4) == {"inference_rate_hz": 4.0}
        assert operator.status()["changed"] == ["streams.cam0.rate_hz"]
        seqs = [result["frame_seq"] for result in operator.await_more(5)[1:]]
        assert all(later - earlier == 5 for earlier, later in pairwise(seqs)), seqs
        assert operator.do("set_inference_rate", rate_hz=None) == {"inference_rate_hz": None}
        assert operator.status()["changed"] == []

        pid = operator.status()["workers"][0]["pid"]
        restarted = operator.do("restart_worker", worker_id="w0")
        assert restarted["restarted"]
        assert restarted["recovery_ms"] > 0
        worker = operator.status()["workers"][0]
        assert worker["pid"] != pid
        assert (worker["restarts"], worker["state"] in {"idle", "busy"}) == (1, True)
        until(lambda: operator.events("worker_restarted"), "the event")
        operator.await_more(2)


def test_regions_and_strategies(mosquitto: Mosquitto, tmp_path: Path) -> None:
    roi = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}
    with operated(mosquitto, tmp_path, "--source", SMALL, "--source", SMALL) as (operator, _):
        set_one = operator.do("set_attention_rois", rois=[roi], stream_id="cam1")
        assert set_one == {"attention_rois_set": True, "num_rois": 1, "effective": True}
        got = operator.do("get_attention_rois", stream_id="cam1")
        assert (got["attention_rois"], got["num_rois"], got["stats"]["active_rois"]) == ([roi], 1, 1)
        assert operator.do("get_attention_rois", stream_id="cam0")["num_rois"] == 0
        until(
            lambda: [
                r
                for r in operator.results("cam1")
                if (p := r["data"]["metadata"]["roi_processing"]) and p["attention_rois"] == [roi]
            ],
            "a result with the region",
        )
        assert operator.do("clear_attention_rois") == {"attention_rois_cleared": True}
        assert operator.do("get_attention_rois")["num_rois"] == 0

        operator.do("set_auto_focus_strategy", strategy="smoothing", alpha=0.5)
        now = operator.do("get_auto_focus_strategy", stream_id="cam1")
        assert (now["strategy"], now["alpha"], now["velocity_factor"]) == ("smoothing", 0.5, 1.5)
        assert operator.status()["changed"] == ["attention.alpha", "attention.strategy"]
        operator.do("set_auto_focus_strategy", strategy="velocity", stream_id="cam1")
        assert operator.do("get_auto_focus_strategy", stream_id="cam0")["strategy"] == "smoothing"
        assert operator.do("get_auto_focus_strategy", stream_id="cam1")["strategy"] == "velocity"
        operator.do("set_auto_focus_strategy", strategy="simple")
        assert operator.do("get_auto_focus_strategy", stream_id="cam1")["strategy"] == "simple"

        stats = operator.do("get_auto_focus_stats", stream_id="cam0")
        assert stats["plans"]["whole_640"] >= 1
        assert stats["reasons"]["first"] == 1
        recall = stats["attention_recall"]
        assert 0 <= recall["hits"] <= recall["total"]
        assert 0 <= recall["last_hour"] <= 1
        assert stats["streams"]["cam0"]["history"] == stats["history"]
        assert {"searches", "search_share", "vanished", "found_again", "exits"} <= stats.keys()
        assert stats["vanished_now"] == []
        assert operator.do("disable_auto_focus") == {"auto_focus_enabled": False}
        assert operator.stream()["attention"]["mode"] == "external"
        assert operator.do("enable_auto_focus") == {"auto_focus_enabled": True}
        assert operator.do("clear_auto_focus_history") == {"auto_focus_history_cleared": True}
        operator.await_more(2)


def test_exits_and_the_search_are_changed_while_it_runs(mosquitto: Mosquitto, tmp_path: Path) -> None:
    door = [[0.4, 0.1], [0.6, 0.1], [0.6, 0.7]]
    with operated(mosquitto, tmp_path, *configured(tmp_path)) as (operator, _):
        pid = operator.status()["workers"][0]["pid"]
        crossing = [[0, 0], [1, 1], [1, 0], [0, 1]]
        for exits, error in (
            ([door, crossing], "streams.0.exits.1: is no polygon: the edge"),
            ([door] * 17, "at most 16"),
        ):
            answer = operator.ask("update_config", config={"streams": [{"stream_id": "cam0", "exits": exits}]})
            assert (answer["code"], error in answer["error"]) == ("invalid_params", True), answer
        changed = {"streams": [{"stream_id": "cam0", "exits": [door]}], "attention": {"vanish_s": None}}
        applied = operator.do("update_config", config=changed)["applied"]
        assert applied == ["attention.vanish_s", "streams.cam0.exits"]
        attention = operator.stream()["attention"]
        assert (attention["exits"], attention["vanish_s"]) == ([door], None)
        assert all(result["data"]["vanished"] == [] for result in operator.await_more(3))
        assert operator.stream()["vanished"] == 0
        assert operator.do("update_config", config={"attention": {"vanish_s": 120}})["config_updated"]
        applied = operator.do("update_config", config={"models": {"person_detector": {"confidence_keep": 0.25}}})[
            "applied"
        ]
        assert applied == ["models.person_detector.confidence_keep"]
        operator.await_more(2)
        status = operator.status()
        assert [worker["pid"] for worker in status["workers"]] == [pid], "no worker was started anew"
        assert status["changed"] == ["models.person_detector.confidence_keep", "streams.cam0.exits"]


def test_streams_come_change_and_go(mosquitto: Mosquitto, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "clip.avi", frames=300)
    options = configured(tmp_path, control={"source_dirs": [str(videos)]})
    with operated(mosquitto, tmp_path, *options) as (operator, instance):
        operator.await_more(1)
        added = [{"stream_id": "cam0"}, {"stream_id": "hall", "source": str(videos / "clip.avi"), "room_id": "hall"}]
        assert operator.do("update_config", config={"streams": added})["applied"] == ["streams.hall"]
        assert operator.await_more(2, "hall")[0]["room_id"] == "hall"
        before = operator.results("hall")[-1]["frame_seq"]

        changed = [{"stream_id": "cam0"}, {"stream_id": "hall", "source": "demo:160x120@10", "rate_hz": 5}]
        applied = operator.do("update_config", config={"streams": changed})["applied"]
        assert applied == ["streams.hall.rate_hz", "streams.hall.source"]
        until(lambda: operator.results("hall")[-1]["data"]["metadata"]["frame_width"] == 160, "the other source")
        seqs = [result["frame_seq"] for result in operator.results("hall")]
        assert seqs == sorted(set(seqs))
        assert seqs[-1] > before

        operator.do("update_config", config={"streams": [{"stream_id": "cam0"}]})
        assert [stream["stream_id"] for stream in operator.status()["streams"]] == ["cam0"]
        until(lambda: len(instance.segments()) == 1, "the removed stream's memory is free")
        last = operator.results("hall")[-1]["frame_seq"]
        operator.do("update_config", config={"streams": changed})
        assert operator.await_more(1, "hall")[0]["frame_seq"] > last, "numbers are never given twice"
        assert operator.status()["changed"] == ["streams.hall"]


def test_a_refused_change_changes_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "secret.avi").write_bytes(b"x")
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "link.avi").symlink_to(tmp_path / "secret.avi")
    options = configured(tmp_path, control={"source_dirs": [str(videos)], "forbid": ["shutdown"]})

    def stream(source: str) -> dict[str, Any]:
        return {"streams": [{"stream_id": "cam0", "source": source}]}

    refusals: list[tuple[dict[str, Any], str, str]] = [
        ({"attention": {"alpha": 0.9, "modus": "off"}}, "invalid_params", "config.attention.modus: unknown key"),
        ({"attention": {"alpha": 9}}, "invalid_params", "config.attention.alpha"),
        ({"attention": {"alpha": 0.9}, "ring": {"slots": 8}}, "invalid_params", "config.ring.slots: needs a restart"),
        ({"mqtt": {"broker": "mqtt://elsewhere"}}, "forbidden", "config.mqtt.broker"),
        ({"mqtt": {"password": "x"}}, "forbidden", "config.mqtt.password"),
        ({"models": {"person_detector": {"model_path": "/etc/passwd"}}}, "forbidden", "model_path"),
        ({"control": {"forbid": []}}, "forbidden", "config.control.forbid"),
        (stream("/etc/passwd"), "forbidden", "control.source_dirs"),
        (stream(str(videos / ".." / "secret.avi")), "forbidden", "control.source_dirs"),
        (stream(str(videos / "link.avi")), "forbidden", "control.source_dirs"),
        (stream(str(videos / "none.avi")), "not_found", "no such file"),
        (stream("0"), "forbidden", "a device"),
        ({"models": {"person_detector": {"size": "m"}}}, "not_found", "embedded"),
    ]
    with operated(mosquitto, tmp_path, *options) as (operator, _):
        config = operator.status()["config"]
        for part, code, error in refusals:
            answer = operator.ask("update_config", config=part)
            assert (answer["status"], answer["code"]) == ("error", code), answer
            assert error in answer["error"], answer
        needs = operator.ask("update_config", config={"ring": {"slots": 8}, "telemetry_s": 5})
        assert needs["data"]["restart_required"] == ["ring.slots", "telemetry_s"]
        assert operator.ask("shutdown")["code"] == "forbidden"
        assert operator.ask("restart_worker", worker_id="w9")["code"] == "not_found"
        assert operator.ask("pause_inference", stream_id="cam9")["code"] == "not_found"
        assert operator.ask("set_model_size", size="l")["code"] == "not_found"
        status = operator.status()
        assert (status["config"], status["changed"], status["paused"]) == (config, [], False)


def test_requests_are_answered_once_in_order_and_repeated_from_memory(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with operated(mosquitto, tmp_path) as (operator, _):
        ids = [operator.send("set_inference_rate", rate_hz=1 + n / 100) for n in range(30)]
        operator.answer(ids[-1])
        order = [a["request_id"] for a in operator.listener.payloads(operator.health) if "command_ack" in a]
        assert order == ids
        rate = operator.stream()["rate_hz"]
        operator.send("set_inference_rate", ids[0], rate_hz=1.0)
        until(lambda: len(operator.answers(ids[0])) == 2, "the answer again")
        assert operator.answers(ids[0])[0] == operator.answers(ids[0])[1]
        assert operator.stream()["rate_hz"] == rate, "a repeated request was executed again"
        operator.send("set_inference_rate", ids[0], rate_hz=9)
        until(lambda: len(operator.answers(ids[0])) == 3, "the refusal")
        assert operator.answers(ids[0])[2]["code"] == "invalid_params"
        operator.listener.publish(operator.control, b"{nonsense")
        unknown = until(lambda: [a for a in operator.answers(None) if a["command_ack"] == "unknown"], "an answer")
        assert unknown[0]["code"] == "invalid_json"
        operator.listener.publish(operator.control, json.dumps({"command": "x" * 70_000}).encode())
        until(lambda: len(operator.answers(None)) == 2, "an answer to what is too large")


def test_changes_survive_a_restart_if_that_is_wanted(mosquitto: Mosquitto, tmp_path: Path) -> None:
    options = configured(tmp_path, persist_changes=True)
    kept = tmp_path / "state" / "orion" / CAM / "changes.yaml"
    with operated(mosquitto, tmp_path, *options) as (operator, _):
        operator.do("set_inference_rate", rate_hz=7)
        operator.do("update_config", config={"attention": {"alpha": 0.6}})
        assert kept.stat().st_mode & 0o077 == 0
    with operated(mosquitto, tmp_path, *options) as (operator, _):
        assert operator.stream()["rate_hz"] == 7
        assert operator.status()["changed"] == ["attention.alpha", "streams.cam0.rate_hz"]
        operator.do("update_config", config={"persist_changes": False})
        assert not kept.exists()


def test_commands_work_again_after_the_broker_was_away(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with operated(mosquitto, tmp_path) as (operator, instance):
        mosquitto.kill()
        until(lambda: "disconnected" in instance.errors(), "the loss")
        mosquitto.start()
        operator.listener.wait_subscribed()
        until(lambda: instance.errors().count("connected: 127.0.0.1") >= 2, "the connection is back")
        assert operator.do("set_inference_rate", rate_hz=3) == {"inference_rate_hz": 3.0}
        operator.listener.publish(operator.control, b'{"command": "shutdown", "request_id": "old"}', retain=True)
        operator.answer("old")
        assert instance.process.wait(30) == 0
    # The command lies retained at the broker now, and must not stop the next run.
    with operated(mosquitto, tmp_path) as (operator, instance):
        until(lambda: "ignored a retained control message" in instance.errors(), "the warning")
        assert operator.status()["running"]


def test_an_instance_of_the_same_name_is_reported(mosquitto: Mosquitto, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with operated(mosquitto, tmp_path) as (operator, _):
        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        with running(elsewhere, "--source", SMALL, instance_id=CAM, broker=url) as other:
            told = until(lambda: operator.events("duplicate_instance"), "the event")
            assert "run" in told[0]["reason"]
            assert other.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_pause_outlives_its_worker(mosquitto: Mosquitto, tmp_path: Path, number: int) -> None:
    with operated(mosquitto, tmp_path) as (operator, _):
        operator.await_more(1)
        os.kill(operator.status()["workers"][0]["pid"], number)
        operator.do("pause_inference")
        done = operator.stream()["completed"]
        until(lambda: operator.stream()["dropped"]["paused"] > 30, "paused frames")
        assert operator.stream()["completed"] == done
        operator.do("resume_inference")
        operator.await_more(2)
