"""Where settings come from: their order, their origins, and that all problems are found at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orion import settings, yaml_file
from orion.config import Config
from orion.errors import ConfigError, ResourceError

EVERYTHING = """
instance_id: hall-2
room_id: room-01
shutdown_timeout_s: 5
streams:
  - stream_id: cam0
    source: rtsp://user:pass@cam-302/stream
    room_id: hab-302
    rate_hz: 2.0
    attention: {mode: auto}
    exits: [[[0, 0.2], [0.1, 0.2], [0.1, 0.9], [0, 0.9]]]
models:
  person_detector:
    model_dir: .
    size: n
    model_path: null
    model_path_320: null
    confidence: 0.5
    confidence_keep: 0.3
    iou: 0.45
    classes: [person]
    provider: auto
attention:
  mode: off                    # not a boolean
  strategy: simple
  alpha: 0.3
  velocity_threshold: 0.05
  velocity_factor: 1.5
  max_expansion: 0.3
  expansion: 0.15
  history_size: 30
  rescan_s: 2.0
  min_person_px: 40
  recall_floor: 0.97
  vanish_s: 120
workers: {count: auto, threads: auto, frame_deadline_s: auto}
ring: {slots: 4}
control: {forbid: [shutdown], source_dirs: []}
persist_changes: false
mqtt:
  broker: none
  username: null
  password_file: null
  tls: {ca: null, cert: null, key: null}
  topics: {control: 'care/control/{instance_id}', health: 'care/health/{instance_id}'}
  qos: {control: 1, health: 1, inferences: 1, status: 1, telemetry: 0}
  outbox: {path: null, max_messages: 100000, replay_delay_s: 5}
telemetry_s: 30
log: {level: info, format: text}
"""

DETECTOR = ("models", "person_detector")


def load(cwd: Path, file: str | None = None, environ: Mapping[str, str] | None = None, **options: Any) -> Config:
    if file is not None:
        (cwd / "orion.yaml").write_text(file)
    return settings.load(options, environ or {}, cwd)


def problems(cwd: Path, file: str | None = None, environ: Mapping[str, str] | None = None, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(cwd, file, environ, **options)
    return [str(problem) for problem in caught.value.problems]


def test_nothing_given_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path) == Config()


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing yet\n") == Config()


def test_every_documented_key_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, EVERYTHING)
    assert config.instance_id == "hall-2"
    assert config.attention.mode == "off"
    assert config.attention_for(config.streams[0]).mode == "auto"
    assert config.attention_for(config.streams[0]).exits == (((0, 0.2), (0.1, 0.2), (0.1, 0.9), (0, 0.9)),)
    assert config.room_for(config.streams[0]) == "hab-302"
    assert config.control.forbid == ("shutdown",)
    assert config.models.person_detector.model_dir == Path()


def test_later_places_win(tmp_path: Path) -> None:
    file = "telemetry_s: 1\nroom_id: file\ninstance_id: file"
    environ = {"ORION_ROOM_ID": "environment", "ORION_INSTANCE_ID": "environment"}
    config = load(tmp_path, file, environ, instance_id="option")
    assert (config.telemetry_s, config.room_id, config.instance_id) == (1, "environment", "option")


def test_the_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("room_id: other")
    assert load(tmp_path, "room_id: default", config="other.yaml").room_id == "other"


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("ORION_MQTT__BROKER", "mqtt://b:1", ("mqtt", "broker"), "mqtt://b:1"),
        ("ORION_ROOM_ID", "0302", ("room_id",), "0302"),
        ("ORION_TELEMETRY_S", "2.5", ("telemetry_s",), 2.5),
        ("ORION_PERSIST_CHANGES", "true", ("persist_changes",), True),
        ("ORION_ATTENTION__MODE", "off", ("attention", "mode"), "off"),
        ("ORION_ATTENTION__RESCAN_S", "null", ("attention", "rescan_s"), None),
        ("ORION_ATTENTION__VANISH_S", "null", ("attention", "vanish_s"), None),
        ("ORION_MODELS__PERSON_DETECTOR__CONFIDENCE_KEEP", ".2", (*DETECTOR, "confidence_keep"), 0.2),
        ("ORION_STREAMS__0__EXITS", "[[[0, 0], [1, 0], [0, 1]]]", ("streams", 0, "exits", 0, 1), (1, 0)),
        ("ORION_WORKERS__COUNT", "2", ("workers", "count"), 2),
        ("ORION_MODELS__PERSON_DETECTOR__CLASSES", '["person", "dog"]', ("models", "person_detector", "classes"), None),
        ("ORION_STREAMS__0__SOURCE", "rtsp://a:b@h/x", ("streams", 0, "source"), "rtsp://a:b@h/x"),
        ("ORION_MQTT__QOS", "{control: 2}", ("mqtt", "qos", "control"), 2),
    ],
)
def test_variables_are_read_by_their_keys_type(
    tmp_path: Path, name: str, text: str, path: tuple[str | int, ...], value: object
) -> None:
    place: Any = load(tmp_path, environ={name: text})
    for key in path:
        place = place[key] if isinstance(key, int) else getattr(place, key)
    assert place == (("person", "dog") if path[-1] == "classes" else value)


def test_a_variable_changes_one_stream_of_the_file(tmp_path: Path) -> None:
    file = "streams: [{stream_id: a, source: demo, rate_hz: 3}, {stream_id: b, source: demo}]"
    environ = {"ORION_STREAMS__1__SOURCE": "rtsp://h/x", "ORION_STREAMS__2": "{stream_id: c, source: '7'}"}
    streams = load(tmp_path, file, environ).streams
    assert [(stream.stream_id, stream.source) for stream in streams] == [("a", "demo"), ("b", "rtsp://h/x"), ("c", "7")]
    assert streams[0].rate_hz == 3


def test_the_variable_of_the_test_data_is_no_setting(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"ORION_TESTDATA": "/somewhere", "PATH": "/bin"}) == Config()


def test_sources_of_the_command_line_replace_the_files(tmp_path: Path) -> None:
    file = "streams: [{stream_id: hall, source: rtsp://h/x, rate_hz: 1}]"
    streams = load(tmp_path, file, source=["demo", "3"], rate="2").streams
    assert [(stream.stream_id, stream.source, stream.rate_hz) for stream in streams] == [
        ("cam0", "demo", 2),
        ("cam1", "3", 2),
    ]


@pytest.mark.parametrize(("switch", "mode"), [("on", "auto"), ("off", "off")])
def test_attention_of_the_command_line_holds_for_every_stream(tmp_path: Path, switch: str, mode: str) -> None:
    file = (
        "streams: [{stream_id: a, source: demo, attention: {mode: external, alpha: 1}}, {stream_id: b, source: demo}]"
    )
    config = load(tmp_path, file, attention=switch)
    settings_of_streams = [config.attention_for(stream) for stream in config.streams]
    assert [(one.mode, one.alpha) for one in settings_of_streams] == [(mode, 1), (mode, 0.3)]


def test_a_pair_named_by_the_command_line_displaces_the_files(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx", "c.onnx"):
        (tmp_path / name).touch()
    file = "models: {person_detector: {model_path: a.onnx, model_path_320: b.onnx}}"
    by_path = load(tmp_path, file, model="c.onnx").models.person_detector
    assert (by_path.model_path, by_path.model_path_320) == (Path("c.onnx"), None)
    by_size = load(tmp_path, file, model_size="m", model_dir=".").models.person_detector
    assert (by_size.model_path, by_size.model_path_320, by_size.size) == (None, None, "m")


def test_every_option_has_a_key(tmp_path: Path) -> None:
    for name in ("pair.onnx", "small.onnx"):
        (tmp_path / name).touch()
    given: dict[str, Any] = {
        "model_dir": ".", "model_size": "s", "model": "pair.onnx", "model_320": "small.onnx", "confidence": "0.4",
        "every_frame": True, "frames": "9", "workers": "2", "threads": "3", "provider": "cpu", "broker": "none",
        "results": "-", "save_frames": "pictures", "instance_id": "a",
    }  # fmt: skip
    assert given.keys() == settings.OPTIONS.keys()
    config = load(tmp_path, **given)
    run, model = config.run, config.models.person_detector
    assert (run.every_frame, run.frames, run.results, run.save_frames) == (True, 9, "-", Path("pictures"))
    assert (config.workers.count, config.workers.threads, config.mqtt.broker) == (2, 3, "none")
    assert (model.size, model.confidence, model.provider, model.model_path) == ("s", 0.4, "cpu", Path("pair.onnx"))


def test_all_problems_are_reported_at_once_with_their_places(tmp_path: Path) -> None:
    file = "telemetry_s: -1\nstreams:\n  - stream_id: cam0\n    sorce: demo\nring: {slots: 99}\n"
    found = problems(tmp_path, file, {"ORION_LOG__LEVEL": "loud"}, confidence="2", model="absent.onnx")
    assert sorted(found) == [
        "log.level: should be 'debug', 'info', 'warning' or 'error', not \"loud\" (ORION_LOG__LEVEL)",
        "models.person_detector.confidence: should be less than 1, not 2 (--confidence)",
        "models.person_detector.model_path: no such file or folder: 'absent.onnx' (--model)",
        "ring.slots: should be less than or equal to 63, not 99 (orion.yaml, line 5)",
        "streams.0.sorce: unknown key; did you mean source? (orion.yaml, line 4)",
        "streams.0.source: is missing (orion.yaml, line 3)",
        "telemetry_s: should be greater than 0, not -1 (orion.yaml, line 1)",
    ]


SQUARE = "[[0, 0], [1, 0], [1, 1], [0, 1]]"


@pytest.mark.parametrize(
    ("exits", "wrong"),
    [
        ("[[0, 0], [1, 1]]", ": should have at least 3 items, not a list of 2"),
        (
            str([[place / 40, place % 2 / 10] for place in range(33)]),
            ": should have at most 32 items, not a list of 33",
        ),
        (
            "[[0, 0], [1, 1], [1, 0], [0, 1]]",
            ": is no polygon: the edge after point 0 crosses or touches the one after ",
        ),
        ("[[0, 0], [1, 0], [1, 1], [0, 0]]", ": is no polygon: point 3 is point 0 again (it closes by itself)"),
        ("[[0, 0], [1.5, 0], [1, 1]]", ".1.0: should be less than or equal to 1, not 1.5"),
        ("[[0, 0], [1], [1, 1]]", ".1.1: is missing"),
        ("[[0, 0], [.nan, 0], [1, 1]]", ".1.0: should be "),
        ("door", ': should be a list, not "door"'),
    ],
)
def test_an_exit_that_is_no_polygon_is_told_with_its_place(tmp_path: Path, exits: str, wrong: str) -> None:
    [found] = problems(tmp_path, f"streams: [{{stream_id: a, source: demo, exits: [{SQUARE}, {exits}]}}]")
    assert found.startswith(f"streams.0.exits.1{wrong}")
    assert found.endswith("(orion.yaml, line 1)")


def test_there_are_at_most_16_exits(tmp_path: Path) -> None:
    [found] = problems(tmp_path, f"streams: [{{stream_id: a, source: demo, exits: [{', '.join([SQUARE] * 17)}]}}]")
    assert found.startswith("streams.0.exits: should have at most 16 items, not a list of 17")


@pytest.mark.parametrize("vanish_s", ["0", "-1", "3601", ".inf", "soon"])
def test_how_long_somebody_is_looked_for_has_bounds(tmp_path: Path, vanish_s: str) -> None:
    [found] = problems(tmp_path, f"attention: {{vanish_s: {vanish_s}}}")
    assert found.startswith("attention.vanish_s: should be ")


def test_a_low_confidence_of_the_command_line_needs_no_other_key(tmp_path: Path) -> None:
    model = load(tmp_path, confidence="0.2").models.person_detector
    assert (model.confidence, model.confidence_keep) == (0.2, 0.3)


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("instance: x", "did you mean instance_id?"),
        ("broker: none", "did you mean mqtt.broker?"),
        ("rate_hz: 2", "did you mean streams.0.rate_hz?"),
        ("mqtt: {usrname: x}", "did you mean username?"),
        ("models: {person_detector: {model_size: n}}", "did you mean size?"),
        ("mqtt: {tls: {verify: false}}", "did you mean key? known are ca, cert, key"),
        (
            "mqtt: {port: 1883}",
            "did you mean outbox? known are broker, username, password_file, tls, topics, qos, outbox",
        ),
        (
            "models: {person_detector: {threshold: 0.4}}",
            (
                "did you mean provider? known are model_dir, size, model_path, model_path_320, "
                "confidence, confidence_keep, iou, classes, provider, self_test_s"
            ),
        ),
    ],
)
def test_an_unknown_key_names_what_may_be_meant(tmp_path: Path, unknown: str, meant: str) -> None:
    [found] = problems(tmp_path, unknown)
    assert f"unknown key; {meant} (orion.yaml" in found


def test_streams_with_one_id_are_reported_beside_what_else_is_wrong(tmp_path: Path) -> None:
    streams = "[{stream_id: A, source: demo}, {stream_id: a, source: demo, rate_hz: 0}, {stream_id: a, sorce: demo}]"
    found = problems(tmp_path, f"streams: {streams}\ntelemetry_s: 0")
    assert [line.partition(":")[0] for line in found] == [
        "streams.0.stream_id", "streams.1.rate_hz", "streams.2.source", "streams.2.sorce", "telemetry_s", "streams"
    ]  # fmt: skip
    assert found[-1] == "streams: streams 1 and 2 have the same stream_id, 'a' (orion.yaml, line 1)"


def test_the_password_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim\nand a note\n")
    file = "mqtt: {username: anna, password_file: secret}"
    from_file = load(tmp_path, file).mqtt.password
    from_environment = load(tmp_path, file, {"ORION_MQTT__PASSWORD": "12345"}).mqtt.password
    assert from_file is not None
    assert from_environment is not None
    assert (from_file.get_secret_value(), from_environment.get_secret_value()) == ("geheim", "12345")


def test_a_password_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    [found] = problems(tmp_path, "mqtt: {username: anna, password: geheim}")
    assert "ORION_MQTT__PASSWORD" in found
    assert "geheim" not in found


def test_a_password_file_that_is_a_folder_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot read"):
        load(tmp_path, "mqtt: {username: anna, password_file: .}")


def test_errors_show_no_credentials(tmp_path: Path) -> None:
    environ = {"ORION_MQTT__PASSWORD": "passw0rt", "ORION_MQTT": "rtsp://anna:geheim@h"}
    file = (
        "streams: [{stream_id: a, source: 'ftp://anna:geheim@h/x'}, {stream_id: 'rtsp://anna:geheim@h', source: demo}]"
    )
    found = "\n".join(problems(tmp_path, file, environ, broker="mqtt://anna:geheim@h"))
    assert "geheim" not in found
    assert "passw0rt" not in found


def test_a_change_of_the_file_reaches_the_configuration_whole(tmp_path: Path) -> None:
    """What `config show` prints can be used as a file again."""
    config = load(tmp_path, EVERYTHING.replace("user:pass@", ""))
    assert load(tmp_path, json.dumps(config.public())) == config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("", None),
        ("12", 12),
        ("0x1F", 31),
        ("012", 12),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("'12'", "12"),
        ("1_000", "1_000"),
        ("٣", "٣"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = yaml_file.parse(text).value
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "line 2, column 5"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is here a second time"),
        ("a: !python/object:os.system x", "line 1, column 4: tags are not supported"),
        ("a: &x [*x]", "line 1, column 4: a value that contains itself"),
        ("? [a]\n: b", "line 1, column 3: a key must be text"),
        ("a: 1\n---\nb: 2", "line 2, column 1"),
        ("a: \x07", "control characters"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(yaml_file.YamlError, match=message.replace("[", r"\[")):
        yaml_file.parse(text)


def test_anchors_are_read() -> None:
    assert yaml_file.parse("a: &x {b: 1}\nc: *x").value == {"a": {"b": 1}, "c": {"b": 1}}


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(n)}: &{chr(n)} [{', '.join(['*' + chr(n - 1)] * 9)}]" for n in range(ord("b"), ord("k"))]
    with pytest.raises(yaml_file.YamlError, match="more values than a configuration can have"):
        yaml_file.parse("\n".join(lines))
