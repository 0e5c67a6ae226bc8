"""What each command takes: its parameters as values with types and limits, checked before anything is done. Pure; used
by the supervisor's thread on what arrives, and by `orion ctl` before it sends.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orion import uri
from orion.config import Identifier, Rate
from orion.messages import Region, Strategy

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_ROUNDING = 1e-9


class Params(BaseModel):
    """The parameters of a command: unknown ones are errors, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NoParams(Params):
    """For commands that take none."""


class StreamParams(Params):
    """For commands that may be narrowed to one stream."""

    stream_id: Identifier | None = None


class RateParams(StreamParams):
    """`rate_hz` null is every frame that can be taken."""

    rate_hz: Rate | None


class SizeParams(Params):
    """Which pair of the model folder."""

    size: Literal["n", "s", "m", "l", "x"]


class RoiParams(Params):
    """A region of interest, normalized to the frame; one smaller than a pixel is looked at as one."""

    x: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    y: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    width: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    height: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _is_inside(self) -> Self:
        if self.x + self.width > 1 + _ROUNDING or self.y + self.height > 1 + _ROUNDING:
            raise ValueError("must lie inside the frame: x + width and y + height at most 1")
        return self

    def region(self) -> Region:
        """Return the region as the detector takes it."""
        return Region(self.x, self.y, self.width, self.height)


class RoisParams(StreamParams):
    """Regions to look at."""

    rois: Annotated[list[RoiParams], Field(min_length=1, max_length=16)]


class StrategyParams(StreamParams):
    """How one frame's boxes suggest the next frame's region; what is absent stays as it is."""

    strategy: Strategy
    alpha: _Share | None = None
    velocity_threshold: _Share | None = None
    velocity_factor: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    max_expansion: _Share | None = None


class ConfigParams(Params):
    """Any part of the configuration, in the form of its file."""

    config: Annotated[dict[str, Any], Field(min_length=1)]


class WorkerParams(Params):
    """Which worker."""

    worker_id: Annotated[str, Field(min_length=1, max_length=64)]


SCHEMAS: Mapping[str, type[Params]] = {
    "get_status": NoParams,
    "pause_inference": StreamParams,
    "resume_inference": StreamParams,
    "set_inference_rate": RateParams,
    "set_model_size": SizeParams,
    "set_attention_rois": RoisParams,
    "clear_attention_rois": StreamParams,
    "get_attention_rois": StreamParams,
    "set_auto_focus_strategy": StrategyParams,
    "get_auto_focus_strategy": StreamParams,
    "get_auto_focus_stats": StreamParams,
    "enable_auto_focus": StreamParams,
    "disable_auto_focus": StreamParams,
    "clear_auto_focus_history": StreamParams,
    "update_config": ConfigParams,
    "restart_worker": WorkerParams,
    "shutdown": NoParams,
}
"""Every command with the parameters that it takes."""


def check(command: str, params: Mapping[str, Any]) -> Params:
    """Return the checked parameters of a known command. Raises ValueError that names the field and says what is
    expected; it quotes nothing of what was given.
    """
    schema = SCHEMAS[command]
    try:
        return schema.model_validate(dict(params))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        # A parameter that is not known explains the one that is missing.
        first = min(found, key=lambda one: one["type"] != "extra_forbidden")
        raise ValueError(_explain(schema, first["loc"], first["type"], first["msg"])) from None


def _explain(schema: type[Params], place: tuple[int | str, ...], kind: str, message: str) -> str:
    path = uri.mask(".".join(["params", *map(str, place)]))[:200]
    if kind == "extra_forbidden":
        known = ", ".join(schema.model_fields) if len(place) == 1 else "x, y, width, height"
        return f"{path}: unknown; known are {known or 'none'}"
    if kind == "missing":
        return f"{path}: is missing"
    if kind == "string_pattern_mismatch":
        return f"{path}: should be lower-case letters, digits, hyphen"
    return f"{path}: {message.removeprefix('Value error, ').removeprefix('Input ')}"
