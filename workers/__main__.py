"""Entry of the drop-in worker, `python -m workers`: arguments, descriptors and signals, then `workers.dropin` in the
same thread. Descriptor 1 is put aside for results and pointed at stderr before anything that may print is imported.
"""

import argparse
import contextlib
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

from orion.errors import EXIT_GAVE_UP, EXIT_OK, OrionError

_PIPE_BYTES = 1024 * 1024
_log = logging.getLogger("workers")


def main() -> NoReturn:
    """Run the worker; exit 0 at the end of input or on SIGTERM, 1 when nobody reads, 2 for arguments, 4 for models."""
    arguments = _parser().parse_args()
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _widen(sys.stdin.fileno())
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s [%(levelname)s] %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    code = _serve(arguments, results)
    sys.stderr.flush()
    # What is left in `results` has no reader, and would be flushed into the closed pipe at interpreter exit.
    os._exit(code)


def _serve(arguments: argparse.Namespace, results: BinaryIO) -> int:
    from orion.messages import DetectorSpec  # noqa: PLC0415 - stdout must be put aside first
    from workers.dropin import Dropin  # noqa: PLC0415

    spec = DetectorSpec(
        model_640=str(arguments.model),
        model_320=None if arguments.model_320 is None else str(arguments.model_320),
        confidence=arguments.confidence,
        iou=0.45,
        classes=("person",),
        provider=arguments.provider,
        threads=arguments.threads,
    )
    try:
        worker = Dropin(spec, sys.stdin.buffer, results)
        _log.info("ready: %s", arguments.model.name)
        worker.run()
    except OrionError as error:
        _log.error("%s", error)
        return error.exit_code
    except BrokenPipeError:
        _log.error("nobody reads the results any more")
        return EXIT_GAVE_UP
    _log.info("end of input")
    return EXIT_OK


def _widen(descriptor: int) -> None:
    """Give a pipe the largest buffer that users may have: a 1080p frame then crosses it in half the time."""
    # What is not a pipe has no such buffer, and a user's share of pipe memory may be spent.
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    _log.info("leaving on %s", signal.Signals(number).name)
    sys.stderr.flush()
    os._exit(EXIT_OK)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workers", description="Orion's detector behind the original worker's stdin/stdout protocol."
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="the ONNX file of the 640 session")
    parser.add_argument("--model-320", type=Path, metavar="FILE", help="the ONNX file of the 320 session")
    parser.add_argument(
        "--confidence", type=_share, default=0.5, metavar="F", help="threshold, 0 < F < 1 (default 0.5)"
    )
    parser.add_argument("--provider", default="auto", metavar="NAME", help="auto, cpu, openvino, ... (default auto)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--threads", type=_positive, default=cores, metavar="N", help="inference threads (default: cores)"
    )
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


if __name__ == "__main__":
    main()
