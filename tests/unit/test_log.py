"""Log lines: one for each event, without credentials, and repeated complaints as a number."""

import json
import logging
import sys

import pytest

from orion import log
from orion.log import Collapser, CollapsingHandler, JsonFormatter, TextFormatter


def record(text: str, *arguments: object, level: int = logging.ERROR, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "orion.x", "levelno": level, "levelname": logging.getLevelName(level), "msg": text, "args": arguments}
        | {"created": 0.25}
        | fields
    )


class Clock:
    """Time that passes when it is told to."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def handler(clock: Clock) -> CollapsingHandler:
    handler = CollapsingHandler(clock)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


class Written:
    """What was written to stderr so far, line by line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def __call__(self) -> list[str]:
        self._text += self._capsys.readouterr().err
        return self._text.splitlines()


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Written:
    return Written(capsys)


def test_text_is_time_level_text() -> None:
    line = TextFormatter("hall-2").format(record("lost after %d s", 3, stream="cam0", trace_id="t1"))
    assert line == "1970-01-01T00:00:00.250Z [ERROR] lost after 3 s instance=hall-2 stream=cam0 trace_id=t1"


def test_json_says_who() -> None:
    event = json.loads(JsonFormatter("hall-2").format(record("it is %s", "lost", worker="w0", stream="cam0")))
    assert event == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "error",
        "logger": "orion.x",
        "message": "it is lost",
        "instance": "hall-2",
        "stream": "cam0",
        "worker": "w0",
    }


@pytest.mark.parametrize("formatter", [TextFormatter("orion"), JsonFormatter("orion")])
def test_a_traceback_stays_in_the_events_line(formatter: logging.Formatter) -> None:
    try:
        dict[str, int]()["rtsp://anna:geheim@cam/live\nsecond line"]
    except KeyError:
        line = formatter.format(record("it failed\nbadly", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "second line" in line
    assert "test_log.py" in line
    assert "geheim" not in line


@pytest.mark.parametrize(
    "text",
    [
        "lost rtsp://anna:geheim@cam-302/live.",
        "lost 'rtsp://anna:geheim@cam-302/live'",
        'lost {"source": "rtsp://anna:geheim@cam-302/live"}',
        "lost rtsp://anna:ge/geheim@cam-302/live",
        "lost rtsp://anna:ge'geheim@cam-302/live",
        "lost http://cam-302/live?user=anna&pwd=geheim",
    ],
)
def test_credentials_are_hidden_wherever_they_stand(text: str) -> None:
    for formatter in (TextFormatter("orion"), JsonFormatter("orion")):
        lines = [formatter.format(record(text)), formatter.format(record("%s", text))]
        assert not [line for line in lines if "geheim" in line]
        assert all("lost" in line and "cam-302" in line for line in lines)


def test_a_text_without_address_stays() -> None:
    assert log.mask_text("mail to anna@example.org, 1://2") == "mail to anna@example.org, 1://2"


def test_a_collapser_admits_the_first_and_counts_the_rest() -> None:
    collapser = Collapser(window_s=10)
    assert [collapser.admit(record("a"), now) for now in (0, 1, 2)] == [True, False, False]
    assert collapser.admit(record("b"), 2)
    assert collapser.due(9.9) == []
    [(first, count)] = collapser.due(10)
    assert (first.getMessage(), count) == ("a", 2)
    assert collapser.admit(record("a"), 10)


def test_a_collapser_tells_levels_and_values_apart() -> None:
    collapser = Collapser()
    assert collapser.admit(record("lost %d", 1), 0)
    assert collapser.admit(record("lost %d", 2), 0)
    assert collapser.admit(record("lost %d", 1, level=logging.WARNING), 0)
    assert not collapser.admit(record("lost 1"), 0)


def test_a_collapser_tells_streams_and_workers_apart() -> None:
    collapser = Collapser()
    assert collapser.admit(record("lost", stream="cam0"), 0)
    assert collapser.admit(record("lost", stream="cam1"), 0)
    assert collapser.admit(record("lost", worker="w0"), 0)
    assert not collapser.admit(record("lost", stream="cam1"), 0)


def test_a_collapser_keeps_a_bounded_number() -> None:
    collapser = Collapser(window_s=1e9)
    for number in range(1000):
        collapser.admit(record("lost %d", number), 0)
        collapser.due(0)
    # The newest is still counted, the oldest is forgotten and written again.
    assert not collapser.admit(record("lost 999"), 0)
    assert collapser.admit(record("lost 0"), 0)


def test_the_handler_writes_repeats_as_a_number(handler: CollapsingHandler, clock: Clock, written: Written) -> None:
    for _ in range(5):
        handler.handle(record("lost"))
    assert written() == ["lost"]
    clock.now_s = log.WINDOW_S
    handler.handle(record("other", level=logging.INFO))
    assert written() == ["lost", "repeated 4 times: lost", "other"]


def test_repeats_are_written_though_nothing_else_is(
    handler: CollapsingHandler, clock: Clock, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler(), handler])
    handler.handle(record("lost"))
    handler.handle(record("lost"))
    log.write_due()
    assert written() == ["lost"]
    clock.now_s = log.WINDOW_S
    log.write_due()
    log.write_due()
    assert written() == ["lost", "repeated 1 times: lost"]


def test_the_handler_repeats_what_is_no_complaint(handler: CollapsingHandler, written: Written) -> None:
    for _ in range(3):
        handler.handle(record("tick", level=logging.INFO))
    assert written() == ["tick"] * 3


def test_closing_writes_what_was_only_counted(handler: CollapsingHandler, written: Written) -> None:
    handler.handle(record("lost"))
    handler.handle(record("lost"))
    handler.close()
    assert written() == ["lost", "repeated 1 times: lost"]


def test_the_level_is_the_projects_and_others_only_warn(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("debug", "text", "orion", "w1")
    logging.getLogger("orion.capture").debug("ours")
    logging.getLogger("amqtt").info("theirs")
    logging.getLogger("amqtt").warning("their warning")
    output = capsys.readouterr()
    assert output.out == ""
    assert [line.split("] ")[1] for line in output.err.splitlines()] == [
        "ours instance=orion worker=w1",
        "their warning instance=orion worker=w1",
    ]
