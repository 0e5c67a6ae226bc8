"""What a command may change: the table holds for every key of the schema, and refusals change nothing."""

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from orion import changes, persist, settings
from orion.changes import (
    EFFECTS,
    Path_,
    differences,
    edited,
    effect_of,
    part_between,
    spelled,
    tree_of,
    updated,
    with_size,
)
from orion.config import Config, StreamConfig
from orion.control import RefusedError
from orion.errors import ConfigError
from tests.conftest import REPOSITORY

OTHER: dict[str, Any] = {
    "instance_id": "other", "room_id": "other", "shutdown_timeout_s": 9.0,
    "streams.cam0.source": "demo:160x120@5", "streams.cam0.room_id": "other", "streams.cam0.rate_hz": 3.0,
    "models.person_detector.model_dir": "/", "models.person_detector.size": "s",
    "models.person_detector.model_path": "/tmp", "models.person_detector.model_path_320": "/tmp",
    "streams.cam0.exits": [[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]],
    "models.person_detector.confidence": 0.7, "models.person_detector.confidence_keep": 0.4,
    "models.person_detector.iou": 0.6,
    "models.person_detector.classes": ["person", "dog"], "models.person_detector.provider": "cpu",
    "models.person_detector.self_test_s": 9.0,
    "attention.mode": "off", "attention.strategy": "velocity", "attention.alpha": 0.9,
    "attention.velocity_threshold": 0.9, "attention.velocity_factor": 9.0, "attention.max_expansion": 0.9,
    "attention.expansion": 0.9, "attention.history_size": 9, "attention.rescan_s": 9.0, "attention.min_person_px": 9,
    "attention.recall_floor": 0.9, "attention.cost_ratio": 9.0, "attention.vanish_s": 9.0,
    "workers.count": 3, "workers.threads": 3, "workers.frame_deadline_s": 9.0,
    "workers.memory_limit_mb": 900, "workers.start_deadline_s": 9.0,
    "workers.restart.immediate": 9, "workers.restart.window_s": 9.0, "workers.restart.limit": 9,
    "workers.restart.limit_window_s": 9.0, "workers.restart.boot_attempts": 9,
    "workers.restart.first_delay_s": 9.0, "workers.restart.longest_delay_s": 9.0,
    "ring.slots": 9, "control.forbid": ["shutdown"], "control.source_dirs": ["/tmp"], "persist_changes": True,
    "mqtt.broker": "none", "mqtt.username": "other", "mqtt.password_file": "/tmp", "mqtt.password": "other",
    "mqtt.tls.ca": "/tmp", "mqtt.tls.cert": "/tmp", "mqtt.tls.key": "/tmp",
    "mqtt.topics.control": "other/c", "mqtt.topics.health": "other/h", "mqtt.topics.inferences": "other/i",
    "mqtt.topics.status": "other/s", "mqtt.topics.telemetry": "other/t",
    "mqtt.qos.control": 2, "mqtt.qos.health": 2, "mqtt.qos.inferences": 2, "mqtt.qos.status": 2,
    "mqtt.qos.telemetry": 2,
    "mqtt.outbox.path": "/tmp/x", "mqtt.outbox.max_messages": 9, "mqtt.outbox.replay_delay_s": 9.0,
    "telemetry_s": 9.0, "log.level": "debug", "log.format": "json",
    "run.every_frame": True, "run.frames": 9, "run.results": "-", "run.save_frames": "/tmp",
}  # fmt: skip
"""Another value for every key that is no stream's attention."""
FROM_FOLDER = Config.model_validate({"models": {"person_detector": {"model_dir": Path("/tmp")}}})


def leaves(section: type[BaseModel], path: Path_ = ()) -> Iterator[Path_]:
    """Yield every key of the schema that holds a value, those of streams under the stream `cam0`."""
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, (*path, name))
        elif typing.get_origin(kind) is tuple and typing.get_args(kind)[0] is StreamConfig:
            yield from (below for below in leaves(StreamConfig, (*path, name, "cam0")) if below[-1] != "stream_id")
        else:
            yield (*path, name)


KEYS = list(leaves(Config))


def part_of(path: Path_, value: Any) -> dict[str, Any]:
    """Return the part of a configuration that sets one key."""
    if path[:2] == ("streams", "cam0"):
        return {"streams": [{"stream_id": "cam0"} | nested(path[2:], value)]}
    return nested(path, value)


def nested(path: Path_, value: Any) -> dict[str, Any]:
    return {path[0]: nested(path[1:], value) if path[1:] else value}


def other_value(path: Path_) -> Any:
    key = ".".join(path)
    return OTHER[key.replace("streams.cam0.attention", "attention")] if key not in OTHER else OTHER[key]


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_the_table_holds_for_every_key(path: Path_, tmp_path: Path) -> None:
    present = FROM_FOLDER
    part = part_of(path, other_value(path))
    match effect_of(path):
        case "live" | "models":
            new = updated(present, part)
            assert spelled(differences(present, new)) == [".".join(path)]
            assert kept_and_read(present, new, tmp_path) == new
        case "restart":
            with pytest.raises(RefusedError, match="needs a restart") as caught:
                updated(present, part | {"attention": {"alpha": 0.7}})
            assert caught.value.refused.data == {"restart_required": [".".join(path)]}
        case "forbidden":
            with pytest.raises(RefusedError, match="cannot be set by command") as caught:
                updated(present, part | {"attention": {"alpha": 0.7}})
            assert caught.value.refused.code == "forbidden"


def kept_and_read(base: Config, new: Config, folder: Path) -> Config:
    """Keep what makes `new` of `base`, and return what a start makes of that which names the same folder of models."""
    environ = {"XDG_STATE_HOME": str(folder), "ORION_MODELS__PERSON_DETECTOR__MODEL_DIR": "/tmp"}
    persist.write(persist.changes_file("orion", environ), part_between(base, new) | {"persist_changes": True})
    again = settings.load_changed(base, {}, environ, folder)
    return again.model_copy(update={"persist_changes": new.persist_changes})


def test_the_readme_shows_the_table() -> None:
    text = (REPOSITORY / "README.md").read_text().partition("What a change by `update_config` takes:")[2]
    rows = text.partition("| key | takes |")[2].partition("\n\n")[0].splitlines()[2:]
    words = {"live": "live", "models": "a change of models", "restart": "a restart", "forbidden": "forbidden"}
    shown: dict[str, str] = {}
    for row in rows:
        _, keys, takes, _ = row.split("|")
        (effect,) = [effect for effect, begin in words.items() if takes.strip().startswith(begin)]
        shown |= dict.fromkeys(re.findall(r"`([^`]+)`", keys), effect)
    for path in KEYS:
        above = [".".join(path[:end]) for end in range(len(path), 0, -1)]
        assert next(shown[key] for key in above if key in shown) == effect_of(path), ".".join(path)


def test_the_table_names_only_keys_that_there_are() -> None:
    known = {".".join(path[:end]) for path in KEYS for end in range(1, len(path) + 1)}
    assert set(EFFECTS) <= known
    assert {effect_of(path) for path in KEYS} == set(typing.get_args(changes.Effect))


def test_what_is_given_as_it_is_changes_nothing() -> None:
    present = Config(streams=(StreamConfig(stream_id="cam0", source="rtsp://user:secret@cam/x"),))
    shown = present.public()
    assert updated(present, shown) == present
    assert "secret" not in str(shown)


def test_secrets_stay() -> None:
    present = settings.check({"mqtt": {"username": "orion", "password": "secret", "broker": "mqtt://broker"}})
    new = updated(present, {"attention": {"alpha": 0.9}})
    assert new.mqtt == present.mqtt
    assert new.attention.alpha == 0.9


def test_several_problems_are_told_together_with_their_place() -> None:
    with pytest.raises(RefusedError) as caught:
        updated(Config(), {"attention": {"alpha": 7}, "streams": [{"stream_id": "B"}]})
    for place in ("config.attention.alpha", "config.streams.0.stream_id", "config.streams.0.source"):
        assert place in str(caught.value)


def test_the_folder_of_a_size_is_that_of_the_present_pair() -> None:
    named = settings.check({"models": {"person_detector": {"model_path": "/m/a.onnx", "model_path_320": "/m/b.onnx"}}})
    model = with_size(named, "s").models.person_detector
    assert (str(model.model_dir), model.size, model.model_path, model.model_path_320) == ("/m", "s", None, None)
    with pytest.raises(RefusedError, match="embedded"):
        with_size(Config(), "s")


def test_changes_are_kept_and_hold_between_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "orion.yaml"
    file.write_text(
        "persist_changes: true\nattention: {alpha: 0.1, expansion: 0.2}\nstreams:\n- {stream_id: a, source: demo}\n"
    )
    environ = {"XDG_STATE_HOME": str(tmp_path), "ORION_ATTENTION__EXPANSION": "0.4"}
    base = settings.load({}, environ, tmp_path)
    new = edited(base, lambda tree: tree["attention"].update(alpha=0.5, expansion=0.3))
    new = updated(new, {"streams": [{"stream_id": "a", "rate_hz": 2}, {"stream_id": "b", "source": "demo"}]})
    kept = persist.changes_file("orion", environ)
    persist.write(kept, part_between(base, new))
    again = settings.load_changed(base, {}, environ, tmp_path)
    assert (again.attention.alpha, again.attention.expansion) == (0.5, 0.4)
    assert [(stream.stream_id, stream.rate_hz) for stream in again.streams] == [("a", 2.0), ("b", None)]
    file.write_text("persist_changes: false\n")
    assert settings.load_changed(settings.load({}, environ, tmp_path), {}, environ, tmp_path) == settings.load(
        {}, environ, tmp_path
    )
    kept.write_text(yaml.safe_dump({"persist_changes": True, "attention": {"alfa": 1}}))
    with pytest.raises(ConfigError, match=r"attention.alfa: unknown key.*changes.yaml"):
        settings.load_changed(base, {}, environ, tmp_path)
    persist.write(kept, {})
    assert not kept.exists()


CAMERAS = """
persist_changes: true
streams:
- {stream_id: door, source: "rtsp://door/x"}
- {stream_id: bed, source: "rtsp://bed/x"}
"""
PASSWORDS = {"ORION_STREAMS__0__SOURCE": "rtsp://u:d@door/x", "ORION_STREAMS__1__SOURCE": "rtsp://u:b@bed/x"}


class Restarted:
    """An instance's configuration over a restart: file and environment, what commands change, and what is left."""

    def __init__(self, folder: Path, **cli: Any) -> None:
        self.folder, self.cli = folder, cli
        self.environ = {"XDG_STATE_HOME": str(folder), **PASSWORDS}
        self.file = folder / "orion.yaml"
        self.file.write_text(CAMERAS)
        self.base = settings.load(cli, self.environ, folder)

    def change(self, streams: list[Any]) -> None:
        """Change the streams by command."""
        new = updated(self.base, {"streams": streams})
        persist.write(persist.changes_file("orion", self.environ), part_between(self.base, new))

    def sources(self) -> dict[str, str]:
        """Return the streams that a start has now."""
        return {stream.stream_id: stream.source for stream in self.started().streams}

    def started(self) -> Config:
        """Return the configuration of a start now."""
        base = settings.load(self.cli, self.environ, self.folder)
        return settings.load_changed(base, self.cli, self.environ, self.folder)


def test_the_environment_numbers_streams_as_the_file_does_whatever_commands_did(tmp_path: Path) -> None:
    run = Restarted(tmp_path)
    run.change([{"stream_id": "bed"}])
    assert run.sources() == {"bed": "rtsp://u:b@bed/x"}
    run.change([{"stream_id": "hall", "source": "rtsp://hall/x"}, {"stream_id": "bed", "rate_hz": 2}])
    assert run.sources() == {"bed": "rtsp://u:b@bed/x", "hall": "rtsp://hall/x"}
    assert run.started().streams[0].rate_hz == 2
    run.change([{"stream_id": "door"}, {"stream_id": "bed", "source": "rtsp://bed/other"}])
    assert run.sources()["bed"] == "rtsp://u:b@bed/x", "the environment has the last word"


def test_what_is_changed_of_one_stream_leaves_the_file_its_say(tmp_path: Path) -> None:
    run = Restarted(tmp_path)
    run.environ = {"XDG_STATE_HOME": str(tmp_path)}
    run.base = settings.load({}, run.environ, tmp_path)
    run.change([{"stream_id": "door", "rate_hz": 2}, {"stream_id": "bed"}])
    edited_file = CAMERAS.replace("rtsp://bed/x", "rtsp://bed/new")
    run.file.write_text(edited_file + "- {stream_id: hall, source: demo}\n")
    assert run.sources() == {"door": "rtsp://door/x", "bed": "rtsp://bed/new", "hall": "demo"}
    assert [stream.rate_hz for stream in run.started().streams] == [2, None, None]
    run.file.write_text("persist_changes: true\nstreams: [{stream_id: bed, source: demo}]\n")
    assert run.sources() == {"bed": "demo"}, "what was changed of a stream that is no more is of no use"


def test_streams_that_the_command_line_lists_are_those(tmp_path: Path) -> None:
    run = Restarted(tmp_path, source=["demo", "demo:64x64@5"])
    run.change([{"stream_id": "cam1", "rate_hz": 3}, {"stream_id": "cam9", "source": "demo"}])
    assert run.sources() == {"cam0": "demo", "cam1": "demo:64x64@5"}
    assert [stream.rate_hz for stream in run.started().streams] == [None, 3]


def test_names_that_look_like_numbers_are_kept_as_names(tmp_path: Path) -> None:
    base = FROM_FOLDER.model_copy(update={"streams": (StreamConfig(stream_id="12e3", source="demo"),)})
    new = edited(base, lambda tree: tree["streams"].append({"stream_id": "0o17", "source": "demo", "room_id": "1e5"}))
    (tmp_path / "orion.yaml").write_text("streams: [{stream_id: '12e3', source: demo}]")
    assert kept_and_read(base, new, tmp_path) == new


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"streams": [1]}, r"^streams: should be keys and values, by stream_id \(.*changes.yaml\)"),
        ({"streams": {"cam0": 7}}, r"^streams.cam0: should be keys and values, or null \(.*changes.yaml\)"),
        ({"streams": {"cam0": {"rate_hz": "x"}}}, r"^streams.0.rate_hz: should be .*changes.yaml\)"),
        ({"streams": {"b": {"source": "demo", "rate": 1}}}, r"^streams.1.rate: unknown key.*changes.yaml\)"),
    ],
)
def test_a_file_of_changes_that_was_edited_badly_is_told(kept: Any, message: str, tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    persist.write(persist.changes_file("orion", environ), {"persist_changes": True, **kept})
    with pytest.raises(ConfigError, match=message):
        settings.load_changed(Config(), {}, environ, tmp_path)


def test_a_tree_gives_the_configuration_back() -> None:
    assert settings.check(tree_of(Config())) == Config()
