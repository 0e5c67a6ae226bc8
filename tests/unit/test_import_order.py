"""The direction of the arrows between modules, read from their source: no module imports upward, and what costs time or
ties a process to a library stays where it belongs.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.conftest import REPOSITORY

PACKAGES = ("orion", "workers", "models", "benchmarks")

LAYERS: tuple[tuple[str, frozenset[str]], ...] = (
    ("vocabulary", frozenset({"errors", "messages", "paths", "stdio", "uri", "demo", "polygon", "config", "log"})),
    ("settings", frozenset({"yaml_file", "keys", "persist", "settings"})),
    (
        "transport and edges",
        frozenset(
            {
                "backoff",
                "decoder",
                "device",
                "figure",
                "lifeline",
                "lock",
                "mailbox",
                "mjpeg",
                "mqtt",
                "network",
                "paint",
                "ring",
                "room",
            }
        )
        | {"scene", "signals", "source", "sources", "telemetry", "video", "vitals", "wire"},
    ),
    ("ownership and decisions", frozenset({"ledger", "dispatch", "known", "limits", "pacing", "restart", "swap"})),
    ("control requests", frozenset({"requests", "control", "desk", "changes"})),
    ("the child", frozenset({"loader", "worker"})),
    (
        "actors",
        frozenset({"broker", "bus", "capture", "crew", "delivery", "display", "exchange", "handle", "keeper"})
        | {"link", "lookup", "outbox", "outlet", "posts", "results", "stream"},
    ),
    ("changes", frozenset({"reconfigure", "reload"})),
    ("reports", frozenset({"report"})),
    ("supervisor", frozenset({"supervisor"})),
    ("commands", frozenset({"commands"})),
    ("what runs it", frozenset({"app", "doctor", "remote", "completion", "ctl", "watch"})),
    ("command line", frozenset({"cli"})),
    ("entry", frozenset({"__main__"})),
)
"""The supervisor's side, lowest first. A module imports from its own layer and from those before it."""

ONE_OWNER = {
    "av": "orion.decoder",
    "paho": "orion.mqtt",
    "onnxruntime": "workers.runtime",
    "amqtt": "orion.broker",
    "sqlite3": "orion.outbox",
}
"""Libraries that one module each may import."""


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `module` is as far down as it is a module of ours; `when` it happens."""

    module: str
    at_start: bool
    for_types: bool


@cache
def sources() -> dict[str, ast.Module]:
    """Return every module of the project's packages, parsed."""
    found = {}
    for package in PACKAGES:
        for path in (REPOSITORY / package).glob("*.py"):
            name = package if path.stem == "__init__" else f"{package}.{path.stem}"
            found[name] = ast.parse(path.read_text("utf-8"))
    return found


def imports(name: str) -> Iterator[Import]:
    """Yield what a module imports, wherever in it."""
    yield from _imports(sources()[name], at_start=True, for_types=False)


def _imports(node: ast.AST, *, at_start: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, at_start, for_types) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.module is not None
            for alias in child.names:
                below = f"{child.module}.{alias.name}"
                yield Import(below if below in sources() else child.module, at_start, for_types)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from _imports(child, at_start=at_start and not inside, for_types=for_types or types)


def loaded_by(name: str) -> set[str]:
    """Return all that importing the module imports, ours by full name, libraries by their top name."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if module in sources():
            found = [one.module for one in imports(module) if one.at_start and not one.for_types]
            waiting += [name if name in sources() else name.partition(".")[0] for name in found]
            waiting += [module.partition(".")[0]]
    return seen


def top(one: Import) -> str:
    """Return the package that an import names."""
    return one.module.partition(".")[0]


def layer_of(module: str) -> int:
    places = [place for place, (_, names) in enumerate(LAYERS) if module.removeprefix("orion.") in names]
    assert len(places) == 1, f"give {module} one place in LAYERS"
    return places[0]


ORION = sorted(name for name in sources() if name.startswith("orion."))
WORKERS = sorted(name for name in sources() if name.startswith("workers."))


def test_every_name_in_the_layers_is_a_module() -> None:
    named = {f"orion.{name}" for _, names in LAYERS for name in names}
    assert named <= set(ORION), f"gone: {sorted(named - set(ORION))}"


def test_no_module_imports_upward() -> None:
    upward = [
        f"{module} ({LAYERS[layer_of(module)][0]}) imports {one.module} ({LAYERS[layer_of(one.module)][0]})"
        for module in ORION
        for one in imports(module)
        if one.module in ORION and layer_of(one.module) > layer_of(module)
    ]
    assert upward == []


def test_no_modules_import_each_other() -> None:
    graph = {
        name: {one.module for one in imports(name) if one.module in sources() and not one.for_types}
        for name in sources()
    }
    while leaves := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"in a circle, or above one: {sorted(graph)}"


def test_the_supervisors_side_never_imports_the_detector() -> None:
    wrong = [
        (module, one.module) for module in ORION for one in imports(module) if top(one) in {"workers", "benchmarks"}
    ]
    assert wrong == []


def test_the_detector_imports_only_the_vocabulary() -> None:
    others = {"orion", "models", "benchmarks"}
    ours = {(module, one.module) for module in WORKERS for one in imports(module) if top(one) in others}
    assert {pair for pair in ours if pair[1] not in {"orion.messages", "orion.errors", "orion.stdio"}} == set()
    assert ("workers.person", "orion.messages") in ours


def test_packages_import_nothing() -> None:
    assert {package: list(imports(package)) for package in PACKAGES} == {package: [] for package in PACKAGES}


def test_the_entry_imports_nothing_when_it_is_imported() -> None:
    assert [one for one in imports("orion.__main__") if one.at_start] == []
    assert {one.module for one in imports("orion.__main__")} >= {"orion.cli"}


def test_a_child_loads_little() -> None:
    heavy = {"pydantic", "yaml", "rich", "cv2", "onnxruntime", "paho", "amqtt"}
    assert loaded_by("orion.worker") & heavy == set()
    assert {"orion.wire", "orion.ring", "numpy"} <= loaded_by("orion.worker")
    assert loaded_by("orion.cli") & (heavy | {"numpy"}) == set()


def test_the_supervisor_loads_no_inference() -> None:
    loaded = loaded_by("orion.app")
    assert {"orion.supervisor", "cv2", "pydantic"} <= loaded
    assert not [name for name in loaded if name == "onnxruntime" or name.startswith("workers")]


def test_libraries_have_one_owner_each() -> None:
    owners = {
        library: {name for name in (*ORION, *WORKERS) if library in map(top, imports(name))} for library in ONE_OWNER
    }
    assert owners == {library: {owner} for library, owner in ONE_OWNER.items()}


def test_one_module_reads_pictures_from_cameras() -> None:
    users = {
        name
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "VideoCapture" and name.startswith(("orion", "workers"))
    }
    assert users == {"orion.device"}
