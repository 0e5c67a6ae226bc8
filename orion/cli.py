"""The command line: which commands and options there are, and which function does what each asks for. Runs in the main
thread; commands import what they need when they are called, so that `--help` and mistakes are answered at once.
"""

import argparse
import ast
import difflib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from orion import __version__, log, paths, stdio
from orion.errors import EXIT_GAVE_UP, EXIT_OK, ConfigError, OrionError, Problem
from orion.signals import held_back

if TYPE_CHECKING:
    from orion import settings
    from orion.config import Config

_LONGEST_TIMEOUT_S = 3600.0
_LEAVE_LIMIT_S = 5.0
"""What a child gets to end in order on Ctrl-C."""
_CATALOGUE = "workers.catalogue_cli"
_MODEL_FOLDER = "models"
_RUNNING = "the only one that runs on this machine, else orion"


class Parser(argparse.ArgumentParser):
    """Answers mistakes with one line, raised as ConfigError; options cannot be abbreviated."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, with the command to ask for help."""
        raise ConfigError(Problem("", f"{self.prog}: {message} (see {self.prog} --help)"))

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and name the nearest known option for the first unknown one."""
        found, unknown = self.parse_known_args(args, namespace)
        if "words" in found:
            # The list of words is closed for argparse where an option follows the command; words may stand behind it.
            found.words += [word for word in unknown if not word.startswith("-")]
            unknown = [word for word in unknown if word.startswith("-")]
        if unknown:
            parser: Parser = found.parser
            known = {option.lstrip("-"): option for action in parser._actions for option in action.option_strings}
            name = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(name.lstrip("-"), known, 1)
            parser.error(f"unknown argument {name}" + (f"; did you mean {known[near[0]]}?" if near else ""))
        return found


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; what went wrong is one line on stderr for each problem."""
    return stdio.guarded(lambda: _run_command(argv))


def _run_command(argv: Sequence[str]) -> int:
    try:
        arguments = _parser().parse_args(list(argv))
        code: int = arguments.action(arguments)
    except OrionError as error:
        log.complain(str(error))
        return error.exit_code
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else EXIT_OK
    return code


def _parser() -> Parser:
    parser = Parser(prog="orion", description="Watches cameras and reports over MQTT where people are.")
    parser.add_argument("--version", action="version", version=f"orion {__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_run, _add_ctl, _add_watch, _add_doctor, _add_models, _add_bench, _add_config, _add_completion):
        add(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[Parser]",
    name: str,
    action: Any,
    summary: str,
    *examples: str,
) -> Parser:
    """Add a command that calls `action` with the arguments; `examples` are shown below its help."""
    epilog = "examples:\n" + "\n".join(f"  {example}" for example in examples) if examples else None
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog)
    parser.set_defaults(action=action, parser=parser)
    return parser


def _add_run(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "run",
        _run,
        "watch the sources and publish who is where, until they end, a signal, or a shutdown command",
        "orion run                                      the demo scene, everything built in",
        "orion run --source rtsp://cam-302/stream --broker mqtt://broker.local",
        "orion run --source room.mp4 --every-frame --broker none --results results.jsonl",
        "orion run --config /etc/orion/orion.yaml",
    )
    _add_run_options(parser)


def _add_run_options(parser: Parser) -> None:
    """Add the options that override the configuration; their values are checked together with it."""
    sources, models, work, output = (
        parser.add_argument_group(title) for title in ("sources", "models", "processes", "results")
    )
    _add_instance_options(parser)
    sources.add_argument(
        "--source",
        action="append",
        metavar="URI",
        help="demo, demo:WIDTHxHEIGHT@FPS, a video file, rtsp://..., http://..., or a device index; repeatable; the "
        "streams cam0, cam1, ... replace the configured ones (default: demo)",
    )
    sources.add_argument(
        "--rate", metavar="HZ", help="results a second and stream (default: every frame that can be taken)"
    )
    sources.add_argument(
        "--every-frame", action="store_true", default=None, help="files and demo: wait for the workers, drop no frame"
    )
    sources.add_argument("--frames", metavar="N", help="stop each stream after N captured frames")
    models.add_argument("--model-dir", metavar="DIR", help="folder in which model pairs are looked up")
    models.add_argument("--model-size", metavar="n|s|m|l|x", help="which pair of the folder (default: n)")
    models.add_argument("--model", metavar="FILE", help="the 640 model's file (default: the embedded model)")
    models.add_argument("--model-320", metavar="FILE", help="the 320 model's file, beside --model")
    models.add_argument("--confidence", metavar="F", help="detection threshold, between 0 and 1 (default: 0.5)")
    models.add_argument(
        "--attention", choices=("on", "off"), help="off = every frame whole through the 640 session (default: on)"
    )
    models.add_argument("--provider", metavar="NAME", help="auto, cpu, openvino, cuda, ... (default: auto)")
    work.add_argument("--workers", metavar="N", help="worker processes (default: from cores and streams)")
    work.add_argument("--threads", metavar="N", help="ONNX Runtime threads in each worker (default: from cores)")
    output.add_argument("--results", metavar="FILE|-", help="also write every result as a line of JSON; - = stdout")
    output.add_argument("--save-frames", metavar="DIR", help="save pictures of the results in this folder")


def _add_instance_options(parser: Parser, usual_id: str = "orion") -> None:
    """Add the options that say which instance is meant and where it publishes."""
    instance = parser.add_argument_group("instance")
    instance.add_argument("--config", metavar="FILE", help="configuration file (default: orion.yaml, if there is one)")
    instance.add_argument(
        "--instance-id", metavar="ID", help=f"lower-case letters, digits, hyphen (default: {usual_id})"
    )
    instance.add_argument(
        "--broker", metavar="URL", help="embedded, none, mqtt://host[:port], mqtts://host[:port] (default: embedded)"
    )


def _add_ctl(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "ctl",
        _ctl,
        "send one command to a running instance and print its answer; without a command, list them",
        "orion ctl get_status",
        "orion ctl set_inference_rate rate_hz=2 stream_id=cam0",
        "orion ctl set_attention_rois 'rois=[{x: 0.1, y: 0.1, width: 0.5, height: 0.5}]'",
        "orion ctl update_config attention.mode=external models.person_detector.confidence=0.6",
        "orion ctl pause          a beginning that is clear is enough",
    )
    _add_instance_options(parser, _RUNNING)
    parser.add_argument("command", metavar="COMMAND", nargs="?")
    parser.add_argument("words", metavar="key=value", nargs="*", help="parameters; values are YAML")
    parser.add_argument("--json", action="store_true", help="print the answer as it came")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="S", help="how long to wait (default: 5, or 60 for what may load models)"
    )


def _add_watch(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "watch",
        _watch,
        "show live what an instance sees and how it is",
        "orion watch",
        "orion watch --instance-id hall --broker mqtt://broker.local",
    )
    _add_instance_options(parser, _RUNNING)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _LONGEST_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"expected 0 to {_LONGEST_TIMEOUT_S:g} seconds, not {text}")
    return seconds


def _add_doctor(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "doctor",
        _doctor,
        "check everything that `run` with the same options needs; exit 1 if anything fails",
        "orion doctor --source rtsp://cam-302/stream --model-dir models",
    )
    _add_run_options(parser)


def _add_models(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(commands, "models", None, "look into model files")
    actions = parser.add_subparsers(metavar="list|inspect|verify|export", required=True)
    for name, help_text in (
        ("list", "list what a folder of models holds"),
        ("verify", "check that the pairs of a folder are complete and run"),
    ):
        action = _command(actions, name, _models, help_text, f"orion models {name} --model-dir models")
        action.add_argument(
            "--model-dir", metavar="DIR", help="the folder (default: the configured one, else the embedded)"
        )
        action.add_argument(
            "--config", metavar="FILE", help="configuration file (default: orion.yaml, if there is one)"
        )
        action.set_defaults(catalogue=name)
    inspect = _command(
        actions, "inspect", _inspect, "say what a model file is", "orion models inspect yolo11n_fp32_640.onnx"
    )
    inspect.add_argument("file", metavar="FILE")
    export = _command(
        actions,
        "export",
        _export,
        "make a pair of model files from YOLO weights; needs ultralytics, onnx and onnxslim",
        "orion models export yolo11n --model-dir models",
    )
    export.add_argument("model", metavar="MODEL", help="a name as yolo11n, or a .pt file")
    export.add_argument("--model-dir", metavar="DIR", default="models", help="where to put it (default: models)")


def _add_bench(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands, "bench", _bench, "run benchmarks; without a name, list them", "orion bench", "orion bench transport"
    )
    parser.add_argument("names", metavar="NAME", nargs="*")


def _add_config(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(commands, "config", None, "show the configuration, or its schema")
    actions = parser.add_subparsers(metavar="show|schema", required=True)
    show = _command(actions, "show", _show_config, "print the configuration as it holds, without secrets")
    _add_run_options(show)
    _command(actions, "schema", _show_schema, "print the JSON schema of the configuration file")


def _add_completion(commands: "argparse._SubParsersAction[Parser]") -> None:
    _command(
        commands,
        "completion",
        lambda _: _show_completion(commands.choices),
        "print a script that lets bash or zsh complete commands",
        'eval "$(orion completion)"',
    )


def _options(arguments: argparse.Namespace) -> Mapping[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name not in {"action", "parser", "catalogue"}}


def _run(arguments: argparse.Namespace) -> int:
    from orion import app  # noqa: PLC0415

    return app.run(*_configurations(arguments))


def _configurations(arguments: argparse.Namespace, present: "settings.Present" = "all") -> "tuple[Config, Config]":
    """Return the configuration as it is written, and with the changes made by command that are kept."""
    from orion import settings  # noqa: PLC0415

    options, cwd = _options(arguments), Path.cwd()
    config = settings.load(options, os.environ, cwd, present)
    return config, settings.load_changed(config, options, os.environ, cwd, present)


def _ctl(arguments: argparse.Namespace) -> int:
    from orion import ctl  # noqa: PLC0415

    timeout_s, named = arguments.timeout, arguments.broker is not None
    config = _remote_config(arguments)
    return ctl.run(config, arguments.command, arguments.words, timeout_s=timeout_s, as_json=arguments.json, named=named)


def _watch(arguments: argparse.Namespace) -> int:
    from orion import watch  # noqa: PLC0415

    return watch.run(_remote_config(arguments), named=arguments.broker is not None)


def _remote_config(arguments: argparse.Namespace) -> "Config":
    """Return the configuration as far as it says which instance is meant and how its broker is reached."""
    from orion import settings  # noqa: PLC0415

    given = {"config": arguments.config, "instance_id": arguments.instance_id, "broker": arguments.broker}
    return settings.load(given, os.environ, Path.cwd(), "broker")


def _doctor(arguments: argparse.Namespace) -> int:
    from orion import doctor  # noqa: PLC0415

    _, config = _configurations(arguments, "own")
    return doctor.examine(config)


def _models(arguments: argparse.Namespace) -> int:
    from orion import settings  # noqa: PLC0415

    config = settings.load(_options(arguments), os.environ, Path.cwd())
    folder = config.models.person_detector.model_dir or _package_folder(_MODEL_FOLDER)
    return _python(_CATALOGUE, arguments.catalogue, str(folder))


def _inspect(arguments: argparse.Namespace) -> int:
    reason = paths.why_absent(Path(arguments.file), "file")
    if reason is not None:
        raise ConfigError(Problem("", f"{reason}: {arguments.file!r}"))
    return _python(_CATALOGUE, "inspect", arguments.file)


def _export(arguments: argparse.Namespace) -> int:
    return _python(_CATALOGUE, "export", arguments.model, arguments.model_dir)


def _bench(arguments: argparse.Namespace) -> int:
    known = _benchmarks()
    for name in arguments.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ConfigError(
                Problem("", f"no benchmark is called {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
            )
    if not arguments.names:
        for name, summary in known.items():
            sys.stdout.write(f"{name:12} {summary}\n")
    codes = [_python(f"benchmarks.{name}") for name in arguments.names]
    return EXIT_GAVE_UP if any(codes) else EXIT_OK


def _show_config(arguments: argparse.Namespace) -> int:
    from orion import yaml_file  # noqa: PLC0415

    _, config = _configurations(arguments)
    sys.stdout.write(yaml_file.dump(config.public()))
    return EXIT_OK


def _show_schema(_: argparse.Namespace) -> int:
    from orion import config  # noqa: PLC0415

    sys.stdout.write(f"{json.dumps(config.json_schema(), indent=2)}\n")
    return EXIT_OK


def _show_completion(commands: Iterable[str]) -> int:
    from orion import completion  # noqa: PLC0415

    sys.stdout.write(completion.script(commands))
    return EXIT_OK


def _python(module: str, *arguments: str) -> int:
    """Run a module in a child that shares our output; return its exit code. Ctrl-C on a terminal reaches it, too."""
    sys.stdout.flush()
    code = f"from orion import signals; signals.run_module({module!r})"
    with held_back({signal.SIGINT}):
        child = subprocess.Popen([sys.executable, "-c", code, *arguments])  # noqa: S603 - our own modules
    try:
        return child.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            child.wait(_LEAVE_LIMIT_S)
        raise
    finally:
        child.kill()
        child.wait()


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def _benchmarks() -> dict[str, str]:
    """Return the modules of `benchmarks` that can be run, with the first sentence of what each says of itself."""
    found = {}
    for path in sorted(_package_folder("benchmarks").glob("[a-z]*.py")):
        text = path.read_text("utf-8")
        if '__name__ == "__main__"' in text:
            found[path.stem] = (ast.get_docstring(ast.parse(text)) or "").partition(".")[0].replace("\n", " ")
    return found
