"""Who falls in made falls and lies: by which looks they can be found, and how long Orion does not report them, with
attention on and, with --off, off. A look finds them with a box of at least 0.3 in confidence that overlaps the truth,
since somebody is known to be there. Attention on is played every frame, attention off about five a second; looks are
tried once a second, or as rarely as --look-every says. With --jobs, each of so many processes has a detector of its own
and takes variant by variant.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.cutouts import load_room
from benchmarks.fall_judge import SOON_S, Verdict
from benchmarks.fall_looks import AROUND_HEIGHTS, LOOKS, SAME_IOU
from benchmarks.fall_trial import COST_RATIO, KEEP, SURE, Effort, Trial, try_variant
from benchmarks.fall_variants import COUNT, variant
from benchmarks.inputs import default_pair, testdata
from benchmarks.report import Bar, Report, Row, describe_model, publish
from orion.lookup import ModelPair
from orion.messages import DetectorSpec
from workers.pair import SessionPair
from workers.person import PersonDetector

MISSED_SHARE = 0.01
UPRIGHT_LOST = 0.05
"""Most of the frames of people who stand in which a whole look does not surely find them: else the clips are bad."""
_MINUTES_S = 120.0
_GROUPS: tuple[tuple[str, Callable[[Trial], str]], ...] = (
    ("kind", lambda trial: trial.variant.kind),
    ("fps", lambda trial: "5 to 10 fps" if trial.variant.fps <= 10 else "15 to 30 fps"),
    ("direction", lambda trial: f"to the {trial.variant.direction}"),
    ("movement", lambda trial: trial.variant.movement),
    ("lying", lambda trial: "for minutes" if trial.variant.lying_s > _MINUTES_S else "for seconds"),
    ("after", lambda trial: trial.variant.after),
)


def measure(
    seeds: Sequence[int], jobs: int, *, heights: Sequence[float], off: bool, threads: int, look_every_s: float
) -> Iterator[Trial]:
    """Yield the trial of every seed, in their order."""
    one = partial(_try_seed, heights=heights, off=off, threads=threads, look_every_s=look_every_s)
    if jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(one, seeds)


def _try_seed(seed: int, *, heights: Sequence[float], off: bool, threads: int, look_every_s: float) -> Trial:
    folder = testdata()
    if folder is None:
        raise FileNotFoundError("the test data is gone")
    detector, pair = _sessions(threads)
    return try_variant(detector, pair, load_room(folder), variant(seed), heights, off=off, look_every_s=look_every_s)


@cache
def _sessions(threads: int) -> tuple[PersonDetector, SessionPair]:
    """Return this process's detector and pair for looks, which live as long as it does."""
    models = default_pair()
    small = None if models.model_320 is None else str(models.model_320)
    large = str(models.model_640)
    detector = PersonDetector(DetectorSpec(large, small, SURE, 0.45, ("person",), "cpu", threads, KEEP))
    return detector, SessionPair.load(DetectorSpec(large, None, KEEP, 0.45, ("person",), "cpu", threads))


def rows(trials: Sequence[Trial]) -> list[Row]:
    """Return the rows of all trials and of each group of them: who could be found, and who was."""
    found = [("all", list(trials))]
    for _, name_of in _GROUPS:
        names = sorted({name_of(trial) for trial in trials})
        found += [(name, [trial for trial in trials if name_of(trial) == name]) for name in names]
    parts = [(what, part) for what, part in found if part]
    off = [(what, part) for what, part in parts if part[0].off is not None]
    return [
        *({"what": what, "variants": len(part)} | _looks(part) for what, part in parts),
        *({"what": f"{what}, attention on"} | _verdicts([trial.on for trial in part]) for what, part in parts),
        *({"what": f"{what}, off"} | _verdicts([trial.off for trial in part if trial.off]) for what, part in off),
        *(_efforts(what, part) for what, part in parts),
    ]


def _looks(trials: Sequence[Trial]) -> Row:
    """Return how often each look finds who lies, how often it alone does, and how often attention reported them."""
    scores = np.array([[getattr(one, name) for name in LOOKS] for trial in trials for one in trial.looks])
    found = scores.reshape(-1, len(LOOKS)) >= KEEP
    moments, findable = len(found), int(found.any(axis=1).sum())
    row: Row = {"moments": moments}
    for number, name in enumerate(LOOKS):
        row[name] = _share(int(found[:, number].sum()), moments)
        row[f"only_{name}"] = _share(int((found[:, number] & (found.sum(axis=1) == 1)).sum()), moments)
    missed = sum(trial.missed for trial in trials)
    return row | {"any": _share(findable, moments), "reported": _share(findable - missed, findable)}


def _verdicts(verdicts: Sequence[Verdict]) -> Row:
    results = sum(verdict.results for verdict in verdicts)
    silences, nobody = ([getattr(one, name) for one in verdicts] for name in ("silence_s", "nobody_s"))
    return {
        "results": results,
        "silence_p50_s": round(float(np.median(silences)), 2),
        "silence_max_s": round(max(silences), 2),
        "nobody_p50_s": round(float(np.median(nobody)), 2),
        "nobody_max_s": round(max(nobody), 2),
        "neither": sum(verdict.neither for verdict in verdicts),
        "never_found": sum(verdict.first_s is None for verdict in verdicts),
        "vanished_max_s": round(max(verdict.vanished_s for verdict in verdicts), 1),
        "left_vanished": sum(verdict.left_vanished for verdict in verdicts),
        "both": sum(verdict.both for verdict in verdicts),
        "extra_per_1000": round(1e3 * sum(verdict.extra for verdict in verdicts) / max(results, 1), 2),
    }


def _efforts(what: str, trials: Sequence[Trial]) -> Row:
    on = sum((trial.effort_on for trial in trials), Effort())
    off = sum((trial.effort_off for trial in trials), Effort())
    row: Row = {
        "what": f"{what}, per result",
        "on_ms": round(on.inference_ms / max(on.results, 1), 2),
        "on_units": round(on.units / max(on.results, 1), 3),
    }
    if off.results:
        row |= {"off_ms": round(off.inference_ms / off.results, 2), "off_units": round(off.units / off.results, 3)}
    return row


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 1.0


def row_of(trial: Trial) -> Row:
    """Return a variant's own row: which look finds them how often, and the longest silences, on and off."""
    made, on, off = trial.variant, trial.on, trial.off
    kind = made.kind if made.kind in {"free", "edge"} else f"{made.kind} at {made.part}"
    shares = {name: _share(sum(getattr(one, name) >= KEEP for one in trial.looks), len(trial.looks)) for name in LOOKS}
    row: Row = {
        "variant": f"{made.seed} {kind} {made.direction} {made.movement} {made.after}",
        "fps": made.fps,
        "fall_s": round(made.fall_s, 2),
        "lying_s": round(on.lying_s, 1),
        **shares,
        "missed": trial.missed,
        "first_s": "never" if on.first_s is None else round(on.first_s, 2),
        "silence_s": round(on.silence_s, 2),
        "nobody_s": round(on.nobody_s, 2),
        "neither": on.neither,
        "vanished_s": round(on.vanished_s, 1),
    }
    return row if off is None else row | {"off_silence_s": round(off.silence_s, 2)}


def bars(trials: Sequence[Trial]) -> list[Bar]:
    """Return what the made falls are held to, as limits from above."""
    findable = sum(trial.findable for trial in trials)
    upright = [score for trial in trials for score in trial.upright]
    late = [trial for trial in trials if trial.on.silence_s > SOON_S and not _missed_in_time(trial.on)]
    return [
        Bar("upright people whom a whole look does not surely find", _below(upright), UPRIGHT_LOST),
        Bar(
            "who lies and can be found, not reported within 1 s",
            _share(sum(t.missed for t in trials), findable),
            MISSED_SHARE,
        ),
        Bar("longest time that said nobody while they lie, s", max(trial.on.nobody_s for trial in trials), SOON_S),
        Bar("variants silent for more than 1 s in which nobody vanished within 1 s", len(late), 0),
        Bar("results with neither them nor somebody vanished", sum(trial.on.neither for trial in trials), 0),
        Bar("results with somebody vanished after they left", sum(trial.on.left_vanished for trial in trials), 0),
    ]


def _missed_in_time(verdict: Verdict) -> bool:
    return verdict.vanished_after_s is not None and verdict.vanished_after_s <= SOON_S


def _below(scores: Sequence[float]) -> float:
    return round(sum(score < SURE for score in scores) / max(len(scores), 1), 4)


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    if not sys.stderr.isatty():
        os.environ.setdefault("COLUMNS", "150")
    seeds = arguments.only or range(arguments.seed_from, arguments.seed_from + arguments.variants)
    trials = []
    options = {"heights": arguments.heights, "off": arguments.off, "threads": arguments.threads}
    options["look_every_s"] = arguments.look_every
    for trial in measure(seeds, arguments.jobs, **options):
        trials.append(trial)
        print(f"{len(trials)} of {len(seeds)} variants", end="\r", file=sys.stderr, flush=True)
    details = [row_of(trial) for trial in trials] if arguments.table else []
    publish(Report("falls", _settings(arguments, trials), rows(trials) + details, bars(trials), _models()))


def _settings(arguments: argparse.Namespace, trials: Sequence[Trial]) -> Row:
    return {
        "seeds": [trial.variant.seed for trial in trials],
        "jobs": arguments.jobs,
        "threads": arguments.threads,
        "confidence": SURE,
        "confidence_keep": KEEP,
        "same_iou": SAME_IOU,
        "cost_ratio": COST_RATIO,
        "around_heights": arguments.heights,
        "look_every_s": arguments.look_every,
    }


def _models() -> dict[str, dict[str, str]]:
    pair: ModelPair = default_pair()
    files: Iterable[tuple[str, Path | None]] = (("640", pair.model_640), ("320", pair.model_320))
    return {size: describe_model(path) for size, path in files if path is not None}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.falls", description="Who falls and lies in made falls.")
    parser.add_argument("--variants", type=int, default=COUNT, metavar="N", help=f"how many (default {COUNT})")
    parser.add_argument("--seed-from", type=int, default=0, metavar="K", help="the first one's seed (default 0)")
    parser.add_argument("--only", type=int, nargs="+", metavar="SEED", help="these and no others")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes (default 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each session (default 1)")
    parser.add_argument(
        "--heights", type=float, nargs="+", default=AROUND_HEIGHTS, metavar="H", help="sides of the looks' crops"
    )
    parser.add_argument(
        "--look-every", type=float, default=1.0, metavar="S", help="seconds between those looks (default 1)"
    )
    parser.add_argument("--off", action="store_true", help="also with attention off, five frames a second")
    parser.add_argument("--table", action="store_true", help="also a row for every variant")
    arguments = parser.parse_args()
    if not arguments.look_every > 0:
        parser.error(f"argument --look-every: must be above 0, not {arguments.look_every}")
    for name in ("variants", "jobs", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"argument --{name}: must be at least 1, not {getattr(arguments, name)}")
    for seed in [arguments.seed_from, *(arguments.only or [])]:
        if seed < 0:
            parser.error(f"a seed is at least 0, not {seed}")
    if testdata() is None:
        parser.error("needs the test data: a folder ../shared/testdata, or the one that ORION_TESTDATA names")
    return arguments


if __name__ == "__main__":
    main()
