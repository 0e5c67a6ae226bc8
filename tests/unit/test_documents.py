"""README and guide name commands, packages and places as they are."""

import configparser
import re
import shlex
from pathlib import Path

import pytest

from orion.cli import main
from orion.lookup import EMBEDDED_HINT
from tests.conftest import REPOSITORY
from workers.export import commands
from workers.providers import PROVIDERS

README = (REPOSITORY / "README.md").read_text("utf-8")
GUIDE = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")


def lines_of(text: str) -> list[str]:
    """Return the lines between fences."""
    return [
        line
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]


def extras() -> dict[str, list[str]]:
    """Return the packages that each extra brings."""
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    return {name: packages.split() for name, packages in parser["options.extras_require"].items()}


def installed_by(told: str) -> list[str]:
    """Return the packages of the first `pip install` in a text."""
    found = re.search(r"pip install (.*?)( &&|;|$)", told)
    assert found is not None, told
    return shlex.split(found[1])


def test_every_command_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    for action in ("_run", "_ctl", "_models", "_inspect", "_export"):
        monkeypatch.setattr(f"orion.cli.{action}", lambda _: 0)
    named = re.findall(r"^(?:\S*/|sudo .*/)?orion ([a-z]+ .*)$", "\n".join(lines_of(README + GUIDE)), re.MULTILINE)
    assert len(named) > 10
    for words in named:
        assert main(shlex.split(words, comments=True)) == 0, words


def test_pip_is_told_to_install_only_what_it_finds() -> None:
    code = [path for folder in ("orion", "workers", "benchmarks") for path in (REPOSITORY / folder).glob("*.py")]
    for text in (README, GUIDE, *(path.read_text("utf-8") for path in code)):
        assert "orion-sensor[" not in text, "the package is on no index"
    named = re.findall(r"pip install (?:-e )?'\.\[(\w+)\]'", README)
    assert set(named) == {"export", "openvino"}
    assert set(named) <= set(extras())


def test_the_advice_names_the_packages_of_the_extra_for_exports() -> None:
    assert "orion models export yolo11n" in EMBEDDED_HINT
    extra = [package.partition(">=")[0] for package in extras()["export"]]
    assert installed_by(commands("yolo11n", Path("models"))[0]) == [*extra, "onnxruntime"]


def test_messages_name_the_packages_of_the_extra_for_openvino() -> None:
    assert installed_by(PROVIDERS["openvino"].advice) == extras()["openvino"]


def test_the_guide_makes_what_the_service_needs() -> None:
    unit = (REPOSITORY / "docs" / "examples" / "orion.service").read_text("utf-8")
    steps = "\n".join(lines_of(GUIDE))
    for needed, made in (
        ("User=orion\nSupplementaryGroups=video\n", "useradd --system --groups video orion"),
        ("ExecStart=/opt/orion/bin/orion run --config /etc/orion/orion.yaml\n", "sudo /opt/orion/bin/pip install"),
        ("ConfigurationDirectory=orion\n", "-t /etc/orion orion.yaml"),
        ("XDG_RUNTIME_DIR=/run/orion\n", "XDG_RUNTIME_DIR=/run/orion /opt/orion/bin/orion ctl"),
    ):
        assert needed in unit
        assert made in steps
