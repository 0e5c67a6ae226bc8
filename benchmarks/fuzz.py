"""Broken input by the hundred thousand: the wire's decoder, the drop-in worker's protocol, the loader of
configurations, the inspector of models and the reader of videos must each answer with an error of ours or accept it.
Each runs in a process of its own with bounded memory, so that a crash is counted and not suffered. Deterministic for a
seed.
"""

import argparse
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import yaml

from benchmarks import footage
from benchmarks.report import Bar, Report, publish
from benchmarks.rig import write_models
from orion import settings, wire
from orion.config import Config
from orion.errors import ConfigError, ModelError, ResourceError, WireError
from orion.messages import (
    AttentionSettings,
    BootFailure,
    Detection,
    DetectorInfo,
    DetectorSpec,
    DetectRequest,
    Forget,
    FrameMessage,
    FrameResult,
    Message,
    Outcome,
    Prepare,
    Ready,
    Region,
    SessionInfo,
)

_BATCH = 2_000
"""Inputs that one process takes."""
_MEMORY_LIMIT_MB = 4_096
_GROWTH_LIMIT_MB = 512
_SLOW_S = 5.0
_BATCH_LIMIT_S = 300.0
_HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, -(2**63), 1e308, float("nan"), float("inf"), 0.5, "", "n", "\0",
    "é" * 50, "x" * 3000, "../../etc/passwd", "rtsp://u:p@h/x", "demo:1x1@1", b"", b"\xff" * 30, [], {}, [[]],
    [None] * 40, {"": {}}, {"x": 0.1, "y": 0.1, "width": 0.2, "height": 0.2}, "320", 320, "command", [1, 2, 3],
    "x - at `$[1][9]`",
)  # fmt: skip
_PIECES = (
    b"\xff\xff\xff\xff", b"\x00" * 8, b"\xc1", b"\xdd\x7f\xff\xff\xff", b"\xdf\x7f\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff",
    b"\x91" * 600, b"[" * 3000, b'{"a":' * 3000, b"&a [*a, *a]", b"*a", b"!!python/object:x", b"\n- ", b": ", b"{",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"1" * 5000, b"\xe2\x80\xa8", b"\t", b"'", b'"', b"#", b"%", b"\n---\n",
)  # fmt: skip
_LAUGHS = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x]"]
    + [f"{chr(b)}: &{chr(b)} [{', '.join(['*' + chr(b - 1)] * 9)}]" for b in range(98, 107)]
)


@dataclass(slots=True)
class Tally:
    """What came of the inputs of one target; `failures` are those that it did not survive as it must."""

    accepted: int = 0
    refused: int = 0
    slowest_ms: float = 0.0
    growth_mb: float = 0.0
    failures: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Return how many inputs were tried to the end."""
        return self.accepted + self.refused


Try = Callable[[random.Random], None]
"""Makes one input and feeds it; raises what the target raises."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with one to six random changes."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 2:
                changed[at:at] = chance.choice(_PIECES)
            case 3:
                del changed[at : at + chance.randint(1, 12)]
            case 4:
                begin = chance.randrange(len(changed) + 1)
                changed[at:at] = changed[begin : begin + chance.randint(1, 40)]
            case _ if chance.random() < 0.2:
                del changed[at:]
    return bytes(changed)


def altered(tree: Any, chance: random.Random) -> Any:
    """Return plain values with one of them, anywhere, exchanged, removed, or joined by another."""
    if isinstance(tree, dict) and tree and chance.random() < 0.9:
        key = chance.choice(list(tree))
        changed = dict(tree)
        if chance.random() < 0.1:
            del changed[key]
        elif chance.random() < 0.1:
            changed[chance.choice(["", "extra", key + "s" if isinstance(key, str) else "k"])] = chance.choice(_HOSTILE)
        else:
            changed[key] = altered(tree[key], chance)
        return changed
    if isinstance(tree, list) and tree and chance.random() < 0.9:
        place = chance.randrange(len(tree))
        return [altered(item, chance) if at == place else item for at, item in enumerate(tree)]
    return chance.choice(_HOSTILE)


def _messages() -> list[bytes]:
    info = DetectorInfo("yolo11n", "n", (SessionInfo("/m", "ab", 640, "cpu", 1.0, 2.0),), 3.5, ((0, "person"),))
    region = Region(0.1, 0.2, 0.3, 0.4)
    outcome = Outcome((Detection(1, 2, 30, 40, 0.9, 0),), "full", 640, None, region, 0.1, 2.0, 0.3, 2.5)
    request = DetectRequest("cam0", 1.5, False, AttentionSettings(), (region,))
    spec = DetectorSpec("/a", "/b", 0.5, 0.45, ("person", "dog"), "cpu", 2)
    told: list[Message] = [
        FrameMessage(7, "orion.a.b.0", 2, 14, 10**18, request),
        Forget("cam0"),
        Ready(info),
        Prepare(3, spec),
    ]
    return [wire.encode(one) for one in (*told, FrameResult(7, outcome, 0.25), BootFailure("E", "no", "Traceback"))]


def _wire() -> Iterator[Try]:
    messages = _messages()

    def attempt(chance: random.Random) -> None:
        packet = chance.choice(messages)
        if chance.random() < 0.5:
            packet = msgpack.packb(altered(msgpack.unpackb(packet), chance))
        else:
            packet = mutated(packet, chance)
        wire.decode(packet)

    yield attempt


def _dropin() -> Iterator[Try]:
    """Feed the whole drop-in worker, with models; an input that it takes for good is answered."""
    from workers.dropin import Dropin  # noqa: PLC0415 - brings onnxruntime

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder, "n")
        pair = str(folder / "yolo11n_640.onnx"), str(folder / "yolo11n_320.onnx")
        source, sink = _Feed(), io.BytesIO()
        worker = Dropin(DetectorSpec(*pair, 0.5, 0.45, ("person",), "cpu", 1), source, sink)
        roi = {"target_size": 320, "crop_applied": False, "merged_roi": {"x": 0.1, "y": 0, "width": 0.5, "height": 1}}
        meta = {"instance_id": "a", "room_id": "b", "seq": 1, "timestamp": "now", "roi_processing": roi}
        trees: list[dict[str, Any]] = [
            {"frame_data": bytes(8 * 6 * 3), "width": 8, "height": 6, "meta": meta},
            {"type": "command", "command": "set_model_size", "params": {"size": "n"}},
            {"type": "command", "command": "set_confidence", "params": {"confidence": 0.4}},
        ]
        packets = [_framed(msgpack.packb(tree)) for tree in trees]
        packets.append(json.dumps({"type": "command", "command": "get_status", "params": {}}).encode() + b"\n")

        def attempt(chance: random.Random) -> None:
            if chance.random() < 0.5:
                packet = _framed(msgpack.packb(altered(chance.choice(trees), chance)))
            else:
                packet = mutated(chance.choice(packets), chance)
            source.take(packet)
            sink.seek(0)
            sink.truncate()
            worker.run()
            if not sink.tell():
                raise WireError("no answer")

        yield attempt


class _Feed(io.BytesIO):
    """A stream of one input after the other."""

    def take(self, packet: bytes) -> None:
        self.seek(0)
        self.truncate()
        self.write(packet)
        self.seek(0)


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _config() -> Iterator[Try]:
    whole = Config().model_dump(mode="json")
    part = {key: whole[key] for key in ("instance_id", "streams", "workers", "ring", "log")}
    trees = [part, {"mqtt": whole["mqtt"]}, {"attention": whole["attention"], "models": whole["models"]}]
    texts = [yaml.safe_dump(tree).encode() for tree in trees] + [_LAUGHS.encode(), b"instance_id: &x a\nroom_id: *x\n"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def attempt(chance: random.Random) -> None:
            environ: Mapping[str, str] = {}
            if chance.random() < 0.4:
                text = _dumped(altered(chance.choice(trees), chance))
            else:
                text = mutated(chance.choice(texts), chance)
            if chance.random() < 0.2:
                key = chance.choice(["RING__SLOTS", "STREAMS__0__SOURCE", "MQTT", "STREAMS__9__X", "A__B__C"])
                environ = {f"ORION_{key}": str(chance.choice(_HOSTILE))}
            (folder / "orion.yaml").write_bytes(text)
            settings.load({}, environ, folder)

        yield attempt


def _dumped(tree: Any) -> bytes:
    text: str = yaml.safe_dump(tree, allow_unicode=True)
    return text.encode("utf-8", "surrogatepass")


def _model() -> Iterator[Try]:
    from workers import catalogue  # noqa: PLC0415 - brings onnxruntime

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder, "n")
        models = [path.read_bytes() for path in sorted(folder.glob("*.onnx"))]
        place = folder / "yolo11s.onnx"

        def attempt(chance: random.Random) -> None:
            place.write_bytes(mutated(chance.choice(models), chance))
            catalogue.inspect(place)

        yield attempt


def _video() -> Iterator[Try]:
    """Read small videos of which the heads are the larger part, to their end."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "video"
        pictures = [np.full((48, 64, 3), 30 * number, np.uint8) for number in range(6)]
        contents = [
            footage.write(place, pictures, codec, container).read_bytes()
            for codec, container in (("mpeg4", "mp4"), ("h264", "mpegts"), ("mpeg4", "avi"), ("hevc", "matroska"))
        ]

        def attempt(chance: random.Random) -> None:
            content = chance.choice(contents)
            for _ in range(chance.randint(1, 8)):
                content = mutated(content, chance)
            place.write_bytes(content)
            for _ in footage.frames(place):
                pass

        yield attempt


TARGETS: Mapping[str, Callable[[], Iterator[Try]]] = {
    "wire": _wire,
    "dropin": _dropin,
    "config": _config,
    "model": _model,
    "video": _video,
}
_REFUSALS = (WireError, ConfigError, ModelError, ResourceError)


def fuzz(target: str, count: int, seed: int) -> Tally:
    """Feed a target `count` inputs, in processes of their own; return what came of them."""
    total = Tally()
    for batch, first in enumerate(range(0, count, _BATCH)):
        tally = _in_process(target, min(_BATCH, count - first), seed * 1_000_003 + batch)
        total.accepted += tally.accepted
        total.refused += tally.refused
        total.slowest_ms = max(total.slowest_ms, tally.slowest_ms)
        total.growth_mb = max(total.growth_mb, tally.growth_mb)
        total.failures += tally.failures
    return total


def _in_process(target: str, count: int, seed: int) -> Tally:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_feed, args=(target, count, seed, theirs), name=f"fuzz-{target}")
    process.start()
    theirs.close()
    try:
        if ours.poll(_BATCH_LIMIT_S):
            tally: Tally = ours.recv()
            return tally
        failure = f"seed {seed}: hangs, or takes longer than {_BATCH_LIMIT_S:g} s for {count} inputs"
    except EOFError:
        process.join()
        failure = f"seed {seed}: the process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()
        ours.close()
    return Tally(failures=(failure,))


def _feed(target: str, count: int, seed: int, result: Connection) -> None:
    """Feed inputs in this process, and send the tally."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    # What is tried prints, onnxruntime to stdout too, which is the report's.
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    chance = random.Random(seed)
    tally, failures = Tally(), Counter[str]()
    for attempt in TARGETS[target]():
        _once(attempt, chance, tally, failures)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_MB * 2**20,) * 2)
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(count - 1):
            _once(attempt, chance, tally, failures)
        tally.growth_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1e3
    tally.failures = tuple(f"{text} ({times} times)" for text, times in failures.items())
    result.send(tally)


def _once(attempt: Try, chance: random.Random, tally: Tally, failures: Counter[str]) -> None:
    began_s = time.perf_counter()
    try:
        attempt(chance)
        tally.accepted += 1
    except _REFUSALS:
        tally.refused += 1
    except Exception as error:  # noqa: BLE001 - whatever else comes out is what this looks for
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = "" if place is None else f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
        failures[f"{type(error).__name__} at {where}: {error}"[:200]] += 1
    took_s = time.perf_counter() - began_s
    tally.slowest_ms = max(tally.slowest_ms, took_s * 1e3)


def main() -> None:
    """Fuzz and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="(default: all)")
    parser.add_argument("--count", type=int, default=100_000, help="inputs for each (default: 100000)")
    parser.add_argument("--seed", type=int, default=1, help="(default: 1)")
    chosen = parser.parse_args()
    targets: Sequence[str] = chosen.targets or list(TARGETS)
    rows, bars = [], []
    for target in targets:
        tally = fuzz(target, chosen.count, chosen.seed)
        sys.stderr.writelines(f"{target}: {failure}\n" for failure in tally.failures)
        rows.append(
            {
                "target": target,
                "inputs": tally.count,
                "refused": tally.refused,
                "accepted": tally.accepted,
                "slowest_ms": round(tally.slowest_ms, 1),
                "growth_mb": round(tally.growth_mb, 1),
            }
        )
        bars += [
            Bar(f"{target}: neither accepted nor refused", chosen.count - tally.count, 0),
            Bar(f"{target}: slowest input (ms)", tally.slowest_ms, _SLOW_S * 1e3),
            Bar(f"{target}: memory (MB)", tally.growth_mb, _GROWTH_LIMIT_MB),
        ]
    publish(Report("fuzz", {"count": chosen.count, "seed": chosen.seed}, rows, bars))
    sys.exit(0 if all(bar.met for bar in bars) else 1)


if __name__ == "__main__":
    main()
