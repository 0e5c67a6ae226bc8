"""The operations guide tells of every event that the code has, and of none that it has not."""

import ast
import re
from typing import get_args

from orion.vitals import Condition
from tests.conftest import REPOSITORY

GUIDE = REPOSITORY / "docs" / "operations.md"


def reported() -> set[str]:
    """Return the events that the supervisor and the application report, by their source."""
    found = {"outbox_overflow", "duplicate_instance"}
    for path in (REPOSITORY / "orion").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_report":
                found |= {str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)}
    return found | {f"stream_{condition}" for condition in get_args(Condition) if condition != "well"}


def test_every_event_has_its_row() -> None:
    (table,) = (part for part in GUIDE.read_text("utf-8").split("\n\n") if part.startswith("| event |"))
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == reported()


def test_the_examples_that_it_names_are_there() -> None:
    named = re.findall(r"\]\((examples/[^)]+)\)", GUIDE.read_text("utf-8"))
    assert named
    assert all((GUIDE.parent / name).is_file() for name in named)
    assert "--shm-size" in GUIDE.read_text("utf-8")
