"""Short runs of the benchmarks that tell what attention finds: they report every video, clip and choice of thresholds.
No figure is held to a limit here.
"""

from pathlib import Path

from benchmarks.attention import LIMITS
from benchmarks.fall_variants import HANDFUL
from tests.process.test_benchmarks import report_of


def test_attention_is_measured_against_the_references_and_by_truth(testdata: Path) -> None:
    report = report_of("benchmarks.attention", "--frames", "2", counted=False)
    rows = report["results"]
    assert {row["what"]: row["frames"] for row in rows if "wall_saved" in row} == dict.fromkeys(LIMITS, 2)
    assert all({"vanished", "kept", "extra"} <= row.keys() for row in rows if "wall_saved" in row)
    clips = [(row["attention"], row["results"]) for row in rows if "nobody_s" in row]
    assert clips == [("on", 2), ("off", 2)] * (2 + len(HANDFUL))
    assert report["settings"]["confidence_keep"] == 0.3
    names = {bar["name"] for bar in report["bars"]}
    assert {f"{video}: people said to have vanished" for video in LIMITS} <= names
    assert "collapse, by truth: results that say neither" in names


def test_every_choice_of_thresholds_is_measured_where_keeping_asks_no_more_than_appearing(testdata: Path) -> None:
    options = ("--confidence", "0.4", "0.6", "--keep", "0.3", "0.5", "--frames", "2")
    report = report_of("benchmarks.keeping", *options, counted=False)
    choices = ["confidence 0.4, keep 0.3", "confidence 0.6, keep 0.3", "confidence 0.6, keep 0.5"]
    assert [row["what"] for row in report["results"]] == [*choices, *(f"{name}, by truth" for name in choices)]
    assert {row["people"] for row in report["results"] if "people" in row} != {0}
    assert all(row["found_share"] <= 1 for row in report["results"] if "found_share" in row)
