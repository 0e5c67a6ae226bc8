"""The configuration as frozen values: every key with its type, range, unit and default. Read by the supervisor's
process and by the commands beside it, never by a worker, which would pay for pydantic. Where values come from is the
business of `orion.settings`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from orion import polygon
from orion import uri as uris
from orion.demo import DemoFormat
from orion.messages import AttentionMode, AttentionSettings, Strategy

TOPIC_FIELDS = ("instance_id", "type")
"""What a topic may have in braces."""
MQTT_PORTS: Mapping[str, int] = {"mqtt": 1883, "mqtts": 8883}
"""Broker schemes and their usual ports."""
SOURCE_SCHEMES = ("rtsp", "rtsps", "http", "https")

_SOURCES = "demo, demo:WIDTHxHEIGHT@FPS, a video file, rtsp://, http(s):// or a device index"
_MAX_SLOTS = 63


def source_kind(source: str) -> Literal["demo", "network", "device", "file"]:
    """Return what kind of source the text names, without looking whether it exists."""
    if "://" in source:
        return "network"
    if source == "demo" or source.startswith("demo:"):
        return "demo"
    return "device" if re.fullmatch(r"[0-9]{1,3}", source) else "file"


def _checked_source(source: str) -> str:
    scheme, separator, _ = source.partition("://")
    if separator:
        if scheme.lower() not in SOURCE_SCHEMES:
            raise ValueError(f"unknown scheme {scheme}://; a source is {_SOURCES}")
        uris.split(source)
    elif source_kind(source) == "demo":
        DemoFormat.parse(source)
    elif "\0" in source:
        raise ValueError(f"a source is {_SOURCES}")
    return source


def _index_as_text(source: object) -> object:
    """Take a device index that was written without quotes."""
    return str(source) if isinstance(source, int) and not isinstance(source, bool) else source


def same_ids(ids: Sequence[str | None]) -> str | None:
    """Return in words which two of the streams' ids are the same, None if no two are."""
    for index, stream_id in enumerate(ids):
        if stream_id is not None and (first := ids.index(stream_id)) != index:
            return f"streams {first} and {index} have the same stream_id, {stream_id!r}"
    return None


def broker_address(broker: str) -> tuple[str, int]:
    """Return host and port of a broker URL `mqtt://host[:port]` or `mqtts://host[:port]`; ValueError if it is none."""
    expected = "expected embedded, none, mqtt://host[:port] or mqtts://host[:port]"
    parts = urlsplit(broker)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{expected}; the port is a number from 1 to 65535") from None
    if "@" in broker:
        raise ValueError("no credentials in the URL: use mqtt.username and mqtt.password_file or ORION_MQTT__PASSWORD")
    if parts.scheme not in MQTT_PORTS or not host or port == 0 or parts.path or parts.query or parts.fragment:
        raise ValueError(expected)
    return host, port or MQTT_PORTS[parts.scheme]


def _encloses(points: tuple[polygon.Point, ...]) -> tuple[polygon.Point, ...]:
    if fault := polygon.fault(points):
        raise ValueError(f"is no polygon: {fault}")
    return points


Identifier = Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=64)]
Text = Annotated[str, Field(min_length=1, max_length=256)]
SourceUri = Annotated[str, BeforeValidator(_index_as_text), Field(min_length=1)]
Rate = Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Polygon = Annotated[tuple[tuple[Share, Share], ...], Field(min_length=3, max_length=32), AfterValidator(_encloses)]
Qos = Literal[0, 1, 2]
CommandName = Literal[
    "get_status", "pause_inference", "resume_inference", "set_inference_rate", "set_model_size", "set_attention_rois",
    "clear_attention_rois", "get_attention_rois", "set_auto_focus_strategy", "get_auto_focus_strategy",
    "get_auto_focus_stats", "enable_auto_focus", "disable_auto_focus", "clear_auto_focus_history", "update_config",
    "restart_worker", "shutdown",
]  # fmt: skip


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=False)


class AttentionConfig(Section):
    """How regions of interest are chosen."""

    mode: AttentionMode = Field(default="auto", description="auto, external (set regions, else whole frames) or off")
    strategy: Strategy = Field(default="simple", description="how one frame's boxes suggest the next frame's region")
    alpha: float = Field(default=0.3, ge=0, le=1, description="smoothing: weight of the newest region, 0 to 1")
    velocity_threshold: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="velocity: movement a frame from which it counts, as a share of the frame's side",
    )
    velocity_factor: float = Field(default=1.5, ge=0, le=100, description="velocity: expansion for a unit of movement")
    max_expansion: float = Field(
        default=0.3, ge=0, le=1, description="velocity: most expansion, as a share of the frame's side"
    )
    expansion: float = Field(
        default=0.15, ge=0, le=1, description="how much wider and higher a region is than its boxes"
    )
    history_size: int = Field(default=30, ge=1, le=1000, description="frames remembered, a stream")
    rescan_s: float | None = Field(
        default=2.0,
        gt=0,
        le=3600,
        description="seconds after which every pixel is seen again at full scale; null = never",
    )
    min_person_px: int = Field(
        default=40, ge=1, le=4096, description="least height in a session's input for a plan to be tried early, pixels"
    )
    recall_floor: float = Field(
        default=0.97, gt=0, le=1, description="share of people found under which rescans come closer, until it recovers"
    )
    cost_ratio: float | None = Field(
        default=None,
        ge=1,
        le=100,
        description="what a 640 inference costs in 320 inferences; null = as measured when a worker starts",
    )
    vanish_s: float | None = Field(
        default=120.0,
        gt=0,
        le=3600,
        description="seconds that somebody who disappeared away from edge and exits is looked for; null = nobody is",
    )


def _without_defaults(schema: dict[str, Any]) -> None:
    for key in schema.get("properties", {}).values():
        key.pop("default", None)


class StreamAttention(AttentionConfig):
    """What one stream sets differently; a key that is absent has the value of the section `attention`."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}


class StreamConfig(Section):
    """One camera, file or scene."""

    stream_id: Identifier = Field(description="unique; lower-case letters, digits, hyphen")
    source: SourceUri = Field(description=_SOURCES)
    room_id: Text | None = Field(default=None, description="null = the instance's")
    rate_hz: Rate | None = Field(default=None, description="results a second; null = every frame that can be taken")
    attention: StreamAttention = Field(default=StreamAttention(), description="what differs from `attention`")
    exits: tuple[Polygon, ...] = Field(
        default=(), max_length=16, description="where people leave inside the picture: polygons of [x, y] in 0 to 1"
    )

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, source: str) -> str:
        return _checked_source(source)


class PersonDetectorConfig(Section):
    """Which models find persons, and what counts as one."""

    model_dir: Path | None = Field(
        default=None, description="folder in which pairs are looked up; null = the embedded model"
    )
    size: Literal["n", "s", "m", "l", "x"] = Field(default="n", description="which pair of the folder")
    model_path: Path | None = Field(default=None, description="the 640 model's file, instead of a lookup")
    model_path_320: Path | None = Field(default=None, description="the 320 model's file; null = the 640 model alone")
    confidence: float = Field(default=0.5, gt=0, lt=1, description="detection threshold for who appears")
    confidence_keep: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="detection threshold for who was there; where `confidence` is lower, that is it",
    )
    iou: float = Field(default=0.45, gt=0, lt=1, description="overlap from which two boxes are one person")
    classes: tuple[Text, ...] = Field(
        default=("person",), min_length=1, description="class names of the model to report"
    )
    provider: Literal["auto", "cpu", "openvino", "openvino-bf16", "cuda", "tensorrt", "coreml"] = Field(
        default="auto", description="execution provider; auto = the fastest that is installed and sees, else cpu"
    )
    self_test_s: float | None = Field(
        default=600.0,
        gt=0,
        le=86400,
        description="seconds after which known pictures are tried again between frames; null = when loaded alone",
    )

    @model_validator(mode="after")
    def _pair_is_whole(self) -> Self:
        if self.model_path_320 is not None and self.model_path is None:
            raise ValueError("model_path_320 needs model_path (--model-320 needs --model)")
        return self


class ModelsConfig(Section):
    """The models, by their task."""

    person_detector: PersonDetectorConfig = Field(default=PersonDetectorConfig(), description="finds persons")


class RestartConfig(Section):
    """When a worker that ended is started again, and when it is given up."""

    immediate: int = Field(default=3, ge=0, le=1_000_000, description="restarts within window_s without delay")
    window_s: float = Field(default=60.0, gt=0, le=86400, description="seconds that `immediate` counts over")
    limit: int = Field(default=10, ge=0, le=1_000_000, description="more deaths within limit_window_s give it up")
    limit_window_s: float = Field(default=600.0, gt=0, le=86400, description="seconds that `limit` counts over")
    boot_attempts: int = Field(default=3, ge=1, le=1_000_000, description="failures to start in a row that give it up")
    first_delay_s: float = Field(default=1.0, gt=0, le=3600, description="seconds of the first delay; each is doubled")
    longest_delay_s: float = Field(default=30.0, gt=0, le=3600, description="seconds that no delay exceeds")


class WorkersConfig(Section):
    """The processes that run the models."""

    count: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        default="auto", description="worker processes; auto = from cores and streams"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto", description="ONNX Runtime threads in each worker; auto = from cores and workers"
    )
    frame_deadline_s: Literal["auto"] | Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = Field(
        default="auto",
        description="seconds after which a worker that has not answered is replaced; auto = from measured times",
    )
    memory_limit_mb: Literal["auto"] | Annotated[int, Field(ge=64, le=16_777_216)] = Field(
        default="auto",
        description="MB of its own from which a worker is replaced; auto = its share of half the machine's memory",
    )
    start_deadline_s: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="seconds that the first start of a worker may take; later ones are held to the longest before them",
    )
    restart: RestartConfig = Field(default=RestartConfig(), description="when a worker is started again")


class RingConfig(Section):
    """The shared memory of one stream."""

    slots: int = Field(
        default=4, ge=3, le=_MAX_SLOTS, description="pictures it holds; 3 = one written, one waiting, one leased"
    )


class ControlConfig(Section):
    """What may be done by command."""

    forbid: tuple[CommandName, ...] = Field(default=(), description="commands that are refused")
    source_dirs: tuple[Path, ...] = Field(default=(), description="folders whose files a command may set as a source")


class TlsConfig(Section):
    """Files for TLS, PEM format; verification cannot be switched off."""

    ca: Path | None = Field(default=None, description="authorities to trust; null = the system's")
    cert: Path | None = Field(default=None, description="our certificate")
    key: Path | None = Field(default=None, description="our certificate's key, not encrypted")

    @model_validator(mode="after")
    def _pair_is_whole(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together")
        return self


class TopicsConfig(Section):
    """MQTT topics; `{instance_id}` is filled in, and `{type}` in inferences."""

    control: Text = Field(default="care/control/{instance_id}", description="commands come in")
    health: Text = Field(default="care/health/{instance_id}", description="answers and events go out")
    inferences: Text = Field(default="care/inferences/{instance_id}/{type}", description="results")
    status: Text = Field(default="care/status/{instance_id}", description="online or offline, retained")
    telemetry: Text = Field(default="care/telemetry/{instance_id}", description="counters and latencies")

    @field_validator("*")
    @classmethod
    def _can_be_published_on(cls, topic: str) -> str:
        fields = re.findall(r"\{([^{}]*)\}", topic)
        if unknown := [name for name in fields if name not in TOPIC_FIELDS]:
            raise ValueError(f"unknown field {{{unknown[0]}}}; known are {{instance_id}} and {{type}}")
        if re.search(r"[{}+#\0]", re.sub(r"\{[^{}]*\}", "", topic)):
            raise ValueError("a topic has no +, # or single braces")
        return topic

    @model_validator(mode="after")
    def _tell_apart(self) -> Self:
        topics = list(self.model_dump().values())
        if twice := [topic for topic in topics if topics.count(topic) > 1]:
            raise ValueError(f"{twice[0]} is used twice")
        if wrong := [name for name, topic in self.model_dump().items() if name != "inferences" and "{type}" in topic]:
            raise ValueError(f"only inferences has {{type}}, not {wrong[0]}")
        return self

    def expanded(self, instance_id: str) -> dict[str, str]:
        """Return the topics by name with the instance's id filled in; `{type}` stays."""
        return {name: topic.replace("{instance_id}", instance_id) for name, topic in self.model_dump().items()}


class QosConfig(Section):
    """MQTT quality of service, by topic: 0 at most once, 1 at least once, 2 exactly once."""

    control: Qos = Field(default=1, description="commands")
    health: Qos = Field(default=1, description="answers and events")
    inferences: Qos = Field(default=1, description="results")
    status: Qos = Field(default=1, description="online or offline")
    telemetry: Qos = Field(default=0, description="counters and latencies")


class OutboxConfig(Section):
    """Where messages wait while the broker is away."""

    path: Path | None = Field(default=None, description="null = $XDG_STATE_HOME/orion/<instance>/outbox.sqlite3")
    max_messages: int = Field(
        default=100_000, ge=1, le=100_000_000, description="messages kept; the oldest results go first"
    )
    replay_delay_s: float = Field(
        default=5.0, ge=0, le=3600, description="seconds from connecting to the first late message"
    )


class MqttConfig(Section):
    """The broker, and what is published how."""

    broker: Text = Field(default="embedded", description="embedded, none, mqtt://host[:port] or mqtts://host[:port]")
    username: Text | None = Field(default=None, description="null = anonymous")
    password_file: Path | None = Field(default=None, description="file whose first line is the password")
    password: SkipJsonSchema[SecretStr | None] = Field(default=None, exclude=True, repr=False)
    tls: TlsConfig = Field(default=TlsConfig(), description="for mqtts://")
    topics: TopicsConfig = Field(default=TopicsConfig(), description="where things are published")
    qos: QosConfig = Field(default=QosConfig(), description="how surely they arrive")
    outbox: OutboxConfig = Field(default=OutboxConfig(), description="for when the broker is away")

    @field_validator("broker")
    @classmethod
    def _is_a_broker(cls, broker: str) -> str:
        if broker not in {"embedded", "none"}:
            broker_address(broker)
        return broker

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("a password needs mqtt.username")
        if self.broker.startswith("mqtt://") and self.tls != TlsConfig():
            raise ValueError("mqtt.tls is set, but mqtt.broker is not mqtts://")
        return self


class LogConfig(Section):
    """What is logged, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least that is logged")
    format: Literal["text", "json"] = Field(default="text", description="one line an event, as text or as JSON")


class RunConfig(Section):
    """What a single run does beside publishing."""

    every_frame: bool = Field(
        default=False, description="files and demo only: the reader waits for the workers, and no frame is dropped"
    )
    frames: int | None = Field(
        default=None, ge=1, description="frames captured, after which a stream stops; null = no limit"
    )
    results: str | None = Field(default=None, min_length=1, description="file for results as JSON lines; - = stdout")
    save_frames: Path | None = Field(default=None, description="folder for pictures of the results")


class Config(Section):
    """The whole configuration of an instance."""

    instance_id: Identifier = Field(default="orion", description="lower-case letters, digits, hyphen")
    room_id: Text = Field(default="room-01", description="where the cameras look, for streams that do not say")
    shutdown_timeout_s: float = Field(default=5.0, gt=0, le=60, description="seconds for an ordered stop")
    streams: tuple[StreamConfig, ...] = Field(
        default=(StreamConfig(stream_id="cam0", source="demo"),),
        min_length=1,
        max_length=64,
        description="what is watched",
    )
    models: ModelsConfig = Field(default=ModelsConfig(), description="what is looked for, and how")
    attention: AttentionConfig = Field(default=AttentionConfig(), description="how regions are chosen")
    workers: WorkersConfig = Field(default=WorkersConfig(), description="processes that run the models")
    ring: RingConfig = Field(default=RingConfig(), description="shared memory")
    control: ControlConfig = Field(default=ControlConfig(), description="what may be done by command")
    persist_changes: bool = Field(default=False, description="whether changes made by command survive a restart")
    mqtt: MqttConfig = Field(default=MqttConfig(), description="results out, commands in")
    telemetry_s: float = Field(default=30.0, gt=0, le=86400, description="seconds between telemetry messages")
    log: LogConfig = Field(default=LogConfig(), description="what is logged")
    run: RunConfig = Field(default=RunConfig(), description="what a run does beside publishing")

    @field_validator("streams")
    @classmethod
    def _ids_are_unique(cls, streams: tuple[StreamConfig, ...]) -> tuple[StreamConfig, ...]:
        if twice := same_ids([stream.stream_id for stream in streams]):
            raise ValueError(twice)
        return streams

    @model_validator(mode="after")
    def _every_frame_is_possible(self) -> Self:
        if not self.run.every_frame:
            return self
        for index, stream in enumerate(self.streams):
            kind = source_kind(stream.source)
            if kind in {"network", "device"}:
                raise ValueError(
                    f"run.every_frame (--every-frame) is for files and the demo: streams.{index}.source is a {kind} "
                    "source, which does not wait"
                )
            if stream.rate_hz is not None:
                raise ValueError(
                    f"run.every_frame (--every-frame) and streams.{index}.rate_hz (--rate) exclude each other"
                )
        return self

    def attention_for(self, stream: StreamConfig) -> AttentionSettings:
        """Return what holds for the attention of `stream`: its own values, else the instance's."""
        own = stream.attention
        merged = self.attention.model_dump() | {key: getattr(own, key) for key in own.model_fields_set}
        return AttentionSettings(**merged, exits=stream.exits)

    def room_for(self, stream: StreamConfig) -> str:
        """Return the room that `stream` looks into."""
        return stream.room_id if stream.room_id is not None else self.room_id

    def public(self) -> dict[str, Any]:
        """Return the configuration as JSON-able values without secrets: no password, no credentials in addresses."""
        tree = self.model_dump(mode="json")
        for stream in tree["streams"]:
            stream["source"] = uris.mask(stream["source"])
        return tree


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
