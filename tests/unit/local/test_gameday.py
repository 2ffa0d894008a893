"""A game day's score: what counts as told in time, as mended, and as lost."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from local.gameday.breaks import BREAKS, headline
from local.gameday.flood import BROKEN, LOUD, Flood, Outcome
from local.gameday.score import PROMISED, Score, table
from noria.ledger import Entry, Fact, Kind


def clock(*moments: float) -> Any:
    ticks: Iterator[float] = iter(moments)
    return lambda: next(ticks)


def test_a_break_that_was_told_of_in_time_and_mended_is_good() -> None:
    score = Score("a break", clock=clock(0, 100, 103, 200, 207))
    score.begin()
    score.was_detected("alarm dead-letters")
    score.begin()
    score.was_recovered("noria redrive validate-upload")
    assert (score.detected, score.recovered, score.problems, score.good) == (3, 7, [], True)


@pytest.mark.parametrize(
    ("score", "problem"),
    [
        (Score("b", recovered=1), "nobody was told"),
        (Score("b", detected=PROMISED + 1, recovered=1), "told after 61 s, not within 60"),
        (Score("b", detected=1), "it did not recover"),
        (Score("b", quiet=True, detected=1, by="alarm x", recovered=1), "somebody was woken for nothing: alarm x"),
        (Score("b", detected=1, recovered=1, lost=["m/incoming/1.csv"]), "lost: m/incoming/1.csv"),
        (Score("b", detected=1, recovered=1, failure="Unexpected: no page"), "Unexpected: no page"),
    ],
)
def test_each_broken_promise_is_named(score: Score, problem: str) -> None:
    assert score.problems == [problem]
    assert not score.good


def test_the_table_tells_all_scores() -> None:
    scores = [Score("one", quiet=True, recovered=2.0, how="by itself"), Score("two", detected=61.0, by="a page")]
    out = io.StringIO()
    Console(file=out, width=200).print(table(scores, seed=7))
    one, two = (line for line in out.getvalue().splitlines() if " one " in line or " two " in line)
    assert "seed 7" in out.getvalue()
    assert all(word in one for word in ("✓", "quiet", "2.0 s", "by itself"))
    assert all(word in two for word in ("✗", "61.0 s", "a page", "never"))


def test_what_is_mended_quietly_is_said_beforehand() -> None:
    assert {name for name, (_, quiet) in BREAKS.items() if quiet} == {
        "a table throttled for a moment",
        "a killed function",
        "an event that nobody heard",
        "a flood of uploads",
    }


def test_an_alarm_is_called_by_its_name_and_a_page_by_its_subject() -> None:
    assert headline('ALARM: "x"\n{"AlarmName": "noria-local-dead-letters"}') == "alarm noria-local-dead-letters"
    assert headline("flight-delay: training stopped\nSomebody stopped it.") == "flight-delay: training stopped"


class Shore:
    """What a flood needs of a world: it remembers uploads, and has a ledger."""

    def __init__(self, model: str) -> None:
        self.model, self.uploaded, self.ledger = model, dict[str, bytes](), list[Entry]()

    def upload(self, name: str, body: bytes) -> str:
        key = f"{self.model}/incoming/{name}"
        self.uploaded[key] = body
        return key

    def last_entry(self) -> int:
        return len(self.ledger)

    def entries(self) -> list[Entry]:
        return self.ledger

    def end(self, key: str, kind: Kind) -> None:
        fact = Fact(
            model=self.model, kind=kind, subject=f"{key} {kind}", at=datetime.now(UTC), summary="", details={"key": key}
        )
        previous = self.ledger[-1].hash if self.ledger else "0" * 64
        self.ledger.append(Entry.after(fact, number=len(self.ledger) + 1, previous=previous))


def flooded(uploads: int) -> tuple[Shore, Shore, Flood]:
    loud, quiet = Shore("loud"), Shore("quiet")
    lines = ["a,b", *(f"{n},{n}" for n in range(uploads + 100))]
    flood = Flood(loud=loud, quiet=quiet, lines=lines, uploads=uploads)  # type: ignore[arg-type]
    flood.send()
    return loud, quiet, flood


def judged(flood: Flood) -> Outcome:
    return flood._judge(flood._ended(), 5, 0)


def test_a_flood_is_of_two_models_partly_broken_and_of_no_two_files_alike() -> None:
    loud, quiet, _ = flooded(440)
    files = {**loud.uploaded, **quiet.uploaded}
    assert (len(files), len(set(files.values()))) == (440, 440)
    assert len(quiet.uploaded) == 440 // (LOUD + 1)
    assert sum(body.startswith(b"a,b_renamed") for body in files.values()) == 440 // BROKEN


def test_each_upload_must_end_once_and_as_it_should() -> None:
    loud, quiet, flood = flooded(110)
    for shore in (loud, quiet):
        for key, body in shore.uploaded.items():
            shore.end(key, Kind.DATASET_QUARANTINED if b"renamed" in body else Kind.DATASET_ACCEPTED)
    assert judged(flood).problems == []
    assert (judged(flood).accepted, judged(flood).quarantined) == (109, 1)
    key = next(iter(loud.uploaded))
    loud.end(key, Kind.DATASET_QUARANTINED)
    assert judged(flood).problems == [f"{key} ended more than once"]


def test_what_has_not_ended_is_lost_and_what_ended_otherwise_is_wrong() -> None:
    loud, _, flood = flooded(2)
    first, second = loud.uploaded
    loud.end(first, Kind.DATASET_QUARANTINED)
    assert judged(flood).problems == [f"{second} ended as nothing", f"{first} ended otherwise than it should"]
