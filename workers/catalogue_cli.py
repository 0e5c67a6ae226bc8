"""The catalogue on the command line: a short-lived process that `orion models` and `orion run` start, since the
long-lived one never loads the detector. What is asked for goes to stdout, what is wrong to stderr.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from orion import stdio
from orion.errors import EXIT_GAVE_UP, EXIT_OK, OrionError
from workers import catalogue, export
from workers.card import ModelCard


def main(arguments: Sequence[str]) -> int:
    """Do what `arguments` say; return the exit code: 1 when `verify` finds fault, 4 when a model cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m workers.catalogue_cli")
    actions = parser.add_subparsers(required=True)
    for name, action in (("list", _list), ("verify", _verify)):
        command = actions.add_parser(name)
        command.add_argument("folder", type=Path)
        command.set_defaults(action=action)
    inspect = actions.add_parser("inspect")
    inspect.add_argument("file", type=Path)
    inspect.set_defaults(action=_inspect)
    resolve = actions.add_parser("resolve")
    resolve.add_argument("folder", type=Path)
    resolve.add_argument("size")
    resolve.set_defaults(action=_resolve)
    exported = actions.add_parser("export")
    exported.add_argument("model")
    exported.add_argument("folder", type=Path)
    exported.set_defaults(action=_export)
    chosen = parser.parse_args(arguments)
    try:
        code: int = chosen.action(chosen)
    except OrionError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return code


def _list(chosen: argparse.Namespace) -> int:
    entries = catalogue.list_folder(chosen.folder)
    for entry in entries:
        what = _line(entry.card) if entry.card else f"unusable: {entry.error}"
        sys.stdout.write(f"{Path(entry.path).name:32} {entry.sha256[:12]:12} {what}\n")
    if not entries:
        sys.stdout.write(f"{chosen.folder}: no .onnx file\n")
    return EXIT_OK


def _verify(chosen: argparse.Namespace) -> int:
    verdicts = catalogue.verify(chosen.folder)
    for verdict in verdicts:
        name = verdict.model_name or Path(verdict.files[0]).name
        runs = ", ".join(f"{session.size} in {session.warm_ms:.0f} ms" for session in verdict.sessions)
        said = [part for part in (f"runs: {runs}" if runs else "", verdict.problem or "") if part]
        sys.stdout.write(f"{name:16} {'; '.join(said)}\n")
    if not verdicts:
        sys.stdout.write(f"{chosen.folder}: no .onnx file\n")
    return EXIT_GAVE_UP if not verdicts or any(verdict.problem for verdict in verdicts) else EXIT_OK


def _inspect(chosen: argparse.Namespace) -> int:
    sys.stdout.write(f"{_line(catalogue.inspect(chosen.file))}\n")
    return EXIT_OK


def _resolve(chosen: argparse.Namespace) -> int:
    sys.stdout.write(f"{json.dumps(asdict(catalogue.resolve(chosen.folder, chosen.size)))}\n")
    return EXIT_OK


def _export(chosen: argparse.Namespace) -> int:
    sys.stdout.write(f"{export.LICENCE}\n")
    made = export.export(chosen.model, chosen.folder, export.ultralytics_exporter(chosen.model, chosen.folder))
    for path in made:
        sys.stdout.write(f"{path}\n")
    return EXIT_OK


def _line(card: ModelCard) -> str:
    side = f"{card.side}x{card.side}" if card.side else "any size"
    classes = "1 class" if len(card.names) == 1 else f"{len(card.names)} classes"
    person = "" if "person" in card.names else ", none called person"
    precision = "float16" if card.half else "float32"
    return f"{card.model_name}, input {side} {precision}, {card.layout} head, {classes}{person}"


if __name__ == "__main__":
    sys.exit(stdio.guarded(lambda: main(sys.argv[1:])))
