"""The configuration's values: what they default to, what they agree on with other modules, what they never show."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from orion import ring
from orion.config import (
    MQTT_PORTS,
    Config,
    MqttConfig,
    RingConfig,
    StreamAttention,
    StreamConfig,
    broker_address,
    json_schema,
    source_kind,
)
from orion.lookup import ModelPair
from orion.messages import AttentionSettings
from orion.reconfigure import detector_spec
from workers.providers import PROVIDERS


def test_attention_of_a_stream_is_its_own_then_the_instances() -> None:
    stream = StreamConfig(stream_id="cam0", source="demo", attention=StreamAttention(mode="off", rescan_s=None))
    config = Config.model_validate({"attention": {"alpha": 0.7, "mode": "external"}, "streams": [stream]})
    settings = config.attention_for(config.streams[0])
    assert (settings.mode, settings.rescan_s, settings.alpha) == ("off", None, 0.7)


def test_defaults_are_those_of_the_vocabulary() -> None:
    config = Config()
    assert config.attention_for(config.streams[0]) == AttentionSettings()
    configured = set(type(config.attention).model_fields)
    assert configured | {"exits"} == set(AttentionSettings.__struct_fields__)


def test_exits_are_the_streams_own() -> None:
    corner = [[0, 0], [0.25, 0], [0, 0.25]]
    streams = [{"stream_id": "a", "source": "demo", "exits": [corner]}, {"stream_id": "b", "source": "demo"}]
    config = Config.model_validate_json(json.dumps({"streams": streams}), strict=True)
    settings = [config.attention_for(stream) for stream in config.streams]
    assert [one.exits for one in settings] == [(((0.0, 0.0), (0.25, 0.0), (0.0, 0.25)),), ()]


@pytest.mark.parametrize(("confidence", "keep", "in_force"), [(0.5, 0.3, 0.3), (0.2, 0.3, 0.2), (0.5, 0.9, 0.5)])
def test_who_was_there_is_never_held_to_more_than_who_appears(confidence: float, keep: float, in_force: float) -> None:
    detector = {"confidence": confidence, "confidence_keep": keep}
    config = Config.model_validate({"models": {"person_detector": detector}})
    spec = detector_spec(config, ModelPair(Path("m.onnx"), None), 1)
    assert (spec.confidence, spec.confidence_keep) == (confidence, in_force)


def test_limits_are_those_of_the_modules_that_have_them() -> None:
    assert RingConfig(slots=ring.MAX_SLOTS).slots == ring.MAX_SLOTS
    assert RingConfig(slots=ring.MIN_SLOTS).slots == ring.MIN_SLOTS
    for slots in (ring.MIN_SLOTS - 1, ring.MAX_SLOTS + 1):
        with pytest.raises(ValidationError):
            RingConfig(slots=slots)
    detector = type(Config().models.person_detector).model_fields["provider"].annotation
    assert set(_choices(detector)) == {"auto", *PROVIDERS}


def _choices(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation)


@pytest.mark.parametrize(
    ("broker", "address"),
    [
        ("mqtt://broker.local", ("broker.local", MQTT_PORTS["mqtt"])),
        ("mqtts://broker.local", ("broker.local", MQTT_PORTS["mqtts"])),
        ("mqtt://127.0.0.1:18830", ("127.0.0.1", 18830)),
        ("mqtt://[::1]:1884", ("::1", 1884)),
    ],
)
def test_a_broker_has_host_and_port(broker: str, address: tuple[str, int]) -> None:
    assert broker_address(broker) == address


@pytest.mark.parametrize(
    "broker",
    ["", "broker.local", "http://broker", "mqtt://", "mqtt://h:0", "mqtt://h:70000", "mqtt://h:x", "mqtt://h/topic"],
)
def test_what_is_no_broker_is_refused(broker: str) -> None:
    with pytest.raises(ValueError, match="expected embedded, none, mqtt://"):
        broker_address(broker)


def test_credentials_in_a_broker_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="no credentials") as caught:
        broker_address("mqtt://anna:geheim@broker")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("demo", "demo"),
        ("demo:640x480@5", "demo"),
        ("rtsp://h/x", "network"),
        ("https://h/x", "network"),
        ("0", "device"),
        ("video.mp4", "file"),
        ("demo.mp4", "file"),
    ],
)
def test_kinds_of_sources(source: str, kind: str) -> None:
    assert source_kind(source) == kind


def test_topics_are_expanded_but_for_the_type() -> None:
    topics = Config().mqtt.topics.expanded("hall-2")
    assert topics["control"] == "care/control/hall-2"
    assert topics["inferences"] == "care/inferences/hall-2/{type}"


def test_secrets_are_not_shown() -> None:
    config = Config(
        streams=(StreamConfig(stream_id="a", source="rtsp://anna:geheim@cam/live?token=tok123"),),
        mqtt=MqttConfig(username="anna", password=SecretStr("passw0rt")),
    )
    shown = f"{config.public()} {config.mqtt} {config.model_dump_json(exclude={'streams'})}"
    assert not [secret for secret in ("geheim", "tok123", "passw0rt") if secret in shown]
    assert config.public()["streams"][0]["source"] == "rtsp://***@cam/live?token=***"


def test_the_public_configuration_means_the_same_again() -> None:
    stream = {"stream_id": "a", "source": "0", "attention": {"mode": "off"}}
    config = Config.model_validate({"streams": [stream], "attention": {"alpha": 0.9}})
    again = Config.model_validate(config.public())
    assert again == config
    assert again.attention_for(again.streams[0]).alpha == 0.9


def test_values_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().telemetry_s = 1.0


def test_every_key_of_the_schema_says_what_it_is() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    keys = {name: key for section in sections for name, key in section.get("properties", {}).items()}
    assert [name for name, key in keys.items() if not key.get("description")] == []
    assert "password" not in keys
    assert "password_file" in keys
    assert all(section["additionalProperties"] is False for section in sections)
    assert "default" not in schema["$defs"]["StreamAttention"]["properties"]["mode"]


def _sections(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def test_the_keys_are_the_documented_ones() -> None:
    assert _sections(Config) == [
        *("instance_id", "room_id", "shutdown_timeout_s", "streams", "models", "attention", "workers", "ring"),
        *("control", "persist_changes", "mqtt", "telemetry_s", "log", "run"),
    ]
    assert _sections(StreamConfig) == ["stream_id", "source", "room_id", "rate_hz", "attention", "exits"]
