"""The catalogue as a short-lived process: `python -m workers.catalogue_cli list|verify FOLDER`, `inspect FILE`, or
`resolve FOLDER SIZE`, which answers in JSON. Started by `orion models` and at the start of `run`, so that neither has
to import the detector.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from orion.errors import EXIT_GAVE_UP, EXIT_OK, OrionError
from workers import catalogue
from workers.card import ModelCard
from workers.catalogue import Entry, Verdict
from workers.session import sha256

_CLASSES_SHOWN = 5


def main() -> int:
    """Do what the arguments say; exit 1 if `verify` finds something wrong, 4 for what cannot be read."""
    parser = argparse.ArgumentParser(prog="workers.catalogue_cli")
    actions = parser.add_subparsers(required=True)
    for name, action in (("list", _list), ("verify", _verify), ("inspect", _inspect), ("resolve", _resolve)):
        arguments = actions.add_parser(name)
        arguments.add_argument("path", type=Path)
        arguments.set_defaults(action=action)
        if name == "resolve":
            arguments.add_argument("size")
    parsed = parser.parse_args()
    try:
        code: int = parsed.action(parsed)
    except OrionError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return code


def _list(arguments: argparse.Namespace) -> int:
    entries = catalogue.list_folder(arguments.path)
    _say(*(_entry_line(entry) for entry in entries))
    if not entries:
        _say(f"{arguments.path} holds no .onnx file")
    return EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    verdicts = catalogue.verify(arguments.path)
    _say(*(_verdict_line(verdict) for verdict in verdicts))
    if not verdicts:
        _say(f"{arguments.path} holds no .onnx file")
    return EXIT_OK if verdicts and not any(verdict.problem for verdict in verdicts) else EXIT_GAVE_UP


def _inspect(arguments: argparse.Namespace) -> int:
    card = catalogue.inspect(arguments.path)
    shown = ", ".join(card.names[:_CLASSES_SHOWN]) + (", ..." if len(card.names) > _CLASSES_SHOWN else "")
    _say(
        f"file     {card.path}",
        f"sha256   {sha256(card.path)}",
        f"model    {card.model_name}, size {card.model_size}",
        f"input    {_side(card)}, {'float16' if card.half else 'float32'}",
        f"output   {card.layout}",
        f"classes  {len(card.names)}: {shown}",
    )
    return EXIT_OK


def _resolve(arguments: argparse.Namespace) -> int:
    _say(json.dumps(asdict(catalogue.resolve(arguments.path, arguments.size))))
    return EXIT_OK


def _entry_line(entry: Entry) -> str:
    name = Path(entry.path).name
    if entry.card is None:
        return f"{name:32} unusable: {entry.error}"
    return f"{name:32} {entry.card.model_name:12} {_side(entry.card):8} {entry.sha256[:12]}"


def _verdict_line(verdict: Verdict) -> str:
    files = ", ".join(Path(path).name for path in verdict.files)
    runs = ", ".join(f"{session.size} runs in {session.warm_ms:.0f} ms" for session in verdict.sessions)
    said = "; ".join(part for part in (runs, verdict.problem) if part)
    return f"{'FAIL' if verdict.problem else 'OK  '} {files}: {said}"


def _side(card: ModelCard) -> str:
    return "any size" if card.side is None else f"{card.side}x{card.side}"


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
