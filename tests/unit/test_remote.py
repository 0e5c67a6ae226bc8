"""Which instance `orion ctl` and `orion watch` mean, and where they look for its broker."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orion.config import Config
from orion.errors import ConfigError
from orion.lock import InstanceLock
from orion.remote import NoAnswerError, broker_url, of_running


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


@contextmanager
def instances(environ: Mapping[str, str], *ids: str) -> Iterator[None]:
    """Stand for instances that run here."""
    with ExitStack() as stack:
        for number, instance_id in enumerate(ids, 1883):
            stack.enter_context(InstanceLock(instance_id, "run1", f"mqtt://127.0.0.1:{number}", environ))
        yield


def meant(environ: Mapping[str, str], *, named: bool = False, **tree: Any) -> str:
    return of_running(Config.model_validate(tree), named=named, environ=environ).instance_id


def test_the_only_one_that_runs_is_meant_when_none_is_configured(environ: Mapping[str, str], tmp_path: Path) -> None:
    assert meant(environ) == "orion"
    with instances(environ, "hall"):
        (tmp_path / "orion" / "left-by-a-killed-run.lock").write_text("{}")
        assert meant(environ) == "hall"
        assert meant(environ, named=True, mqtt={"broker": "embedded"}) == "hall"
        found = of_running(Config(), named=False, environ=environ)
        assert broker_url(found, named=False, environ=environ) == "mqtt://127.0.0.1:1883"


def test_a_configured_id_and_another_broker_are_left_alone(environ: Mapping[str, str]) -> None:
    with instances(environ, "hall"):
        assert meant(environ, instance_id="orion") == "orion"
        assert meant(environ, named=True, mqtt={"broker": "mqtt://elsewhere"}) == "orion"


def test_of_several_none_is_guessed(environ: Mapping[str, str]) -> None:
    with (
        instances(environ, "orion", "hall"),
        pytest.raises(ConfigError, match="which instance with --instance-id; these run here: hall, orion"),
    ):
        meant(environ)


def test_an_id_that_nobody_has_is_answered_with_those_that_run(environ: Mapping[str, str]) -> None:
    absent = Config(instance_id="hal")
    with pytest.raises(NoAnswerError, match="the instance 'hal' does not run on this machine; name its broker"):
        broker_url(absent, named=False, environ=environ)
    with (
        instances(environ, "hall"),
        pytest.raises(NoAnswerError, match="this machine, where these do: hall; name one with"),
    ):
        broker_url(absent, named=False, environ=environ)
