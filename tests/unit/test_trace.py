"""Walks over a ledger written by hand: who answered, what it was learnt from, and what a file went into."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.trace import answering, back, datasets, forward, lived, spans

GROUP = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/noria-dev-flight-delay"
ONE, TWO, THREE = (f"{GROUP}/{version}" for version in (1, 2, 3))
EXECUTION = "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/noria-dev-flight-delay/execution/{}"
JANUARY, FEBRUARY = "a" * 64, "b" * 64
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def ledger(*told: tuple[float, Kind, str, dict[str, Any]]) -> list[Entry]:
    """Entries of minutes after noon, kind, subject and details."""

    def chained() -> Iterator[Entry]:
        number, previous = 0, GENESIS
        for minutes, kind, subject, details in told:
            fact = Fact(
                model="flight-delay",
                kind=kind,
                subject=subject,
                at=at(minutes),
                summary=f"{kind} of {subject}.",
                details=details,
            )
            entry = Entry.after(fact, number=number + 1, previous=previous)
            number, previous = entry.number, entry.hash
            yield entry

    return list(chained())


def asked(minutes: float, id_: str, champion: str, challenger: str = "none") -> tuple[float, Kind, str, dict[str, Any]]:
    details = {"package": champion, "challenger": challenger, "percent": 0, "shadow": "none"}
    return minutes, Kind.DEPLOYMENT_REQUESTED, id_, details


def settled(
    minutes: float, id_: str, champion: str, challenger: str = "none", kind: Kind = Kind.DEPLOYED
) -> tuple[float, Kind, str, dict[str, Any]]:
    details = {"package": champion, "challenger": challenger, "percent": 0, "shadow": "none", "config": f"config-{id_}"}
    return minutes, kind, id_, details


FIRST = (asked(0, "d1", ONE), settled(5, "d1", ONE))
SECOND = (*FIRST, asked(60, "d2", TWO), settled(80, "d2", TWO))


@pytest.mark.parametrize(
    ("minutes", "packages"),
    [(-1, ()), (3, (ONE,)), (5, (ONE,)), (59, (ONE,)), (60, (ONE, TWO)), (79, (ONE, TWO)), (80, (TWO,)), (999, (TWO,))],
)
def test_while_traffic_moves_old_and_new_may_both_have_answered(minutes: float, packages: tuple[str, ...]) -> None:
    assert answering(ledger(*SECOND), "champion", at(minutes)).packages == packages


def test_one_that_is_sure_names_its_configuration_and_its_time() -> None:
    answered = answering(ledger(*SECOND), "champion", at(30))
    assert (answered.text, answered.config) == ("version 1", "config-d1")
    assert (answered.since, answered.until, answered.why) == (at(5), at(80), None)


def test_several_say_from_when_to_when_and_none_says_why() -> None:
    both = answering(ledger(*SECOND), "champion", at(70))
    assert both.text == "either version 1 or version 2"
    assert "from 2026-11-21 13:00:00 UTC to 2026-11-21 13:20:00 UTC" in str(both.why)
    assert (both.config, both.since) == (None, None)
    nobody = answering(ledger(*SECOND), "challenger", at(30))
    assert nobody.packages == ()
    assert "nobody who answered as challenger" in str(nobody.why)


def test_after_a_rollback_it_was_one_of_both_until_it_was_told_and_the_old_one_since() -> None:
    entries = ledger(*FIRST, asked(60, "d2", TWO), settled(70, "d2", TWO, kind=Kind.ROLLED_BACK))
    assert answering(entries, "champion", at(65)).packages == (ONE, TWO)
    assert answering(entries, "champion", at(71)).packages == (ONE,)


def test_what_was_superseded_while_it_waited_never_answered() -> None:
    entries = ledger(
        *FIRST,
        asked(60, "d2", TWO),
        asked(61, "d3", THREE),
        (61, Kind.DEPLOYMENT_WAITING, "d3", {"package": THREE}),
        settled(62, "d3", THREE, kind=Kind.DEPLOYMENT_SUPERSEDED),
        settled(80, "d2", TWO),
    )
    assert answering(entries, "champion", at(70)).packages == (ONE, TWO)


def test_what_was_superseded_at_once_may_have_begun() -> None:
    entries = ledger(
        *FIRST,
        asked(60, "d2", TWO),
        asked(60, "d3", THREE),
        settled(60, "d2", TWO, kind=Kind.DEPLOYMENT_SUPERSEDED),
        settled(80, "d3", THREE),
    )
    may = answering(entries, "champion", at(70))
    assert may.packages == (ONE, TWO, THREE)
    assert "if it had begun before another was asked for" in str(may.why)
    assert answering(entries, "champion", at(80)).packages == (THREE,)
    assert spans(entries, TWO) == []


def test_a_change_that_waits_begins_when_the_one_before_has_ended() -> None:
    entries = ledger(
        *FIRST, asked(60, "d2", TWO), asked(65, "d3", THREE), settled(80, "d2", TWO), settled(99, "d3", THREE)
    )
    assert answering(entries, "champion", at(70)).packages == (ONE, TWO)
    assert answering(entries, "champion", at(90)).packages == (TWO, THREE)


def test_a_challenger_has_a_name_of_its_own() -> None:
    entries = ledger(
        *FIRST, asked(60, "d2", ONE, TWO), settled(70, "d2", ONE, TWO), asked(90, "d3", TWO), settled(95, "d3", TWO)
    )
    assert answering(entries, "champion", at(65)).packages == (ONE,)
    assert answering(entries, "challenger", at(80)).packages == (TWO,)
    assert answering(entries, "challenger", at(100)).packages == ()
    assert [(s.variant, s.since, s.until, s.shared) for s in spans(entries, TWO)] == [
        ("challenger", at(60), at(70), True),
        ("challenger", at(70), at(95), False),
        ("champion", at(90), at(95), True),
        ("champion", at(95), None, False),
    ]


def test_what_somebody_else_put_there_may_have_answered_before_it_was_seen() -> None:
    entries = ledger(*FIRST, settled(60, "x", THREE, kind=Kind.SERVING_DIFFERS))
    before = answering(entries, "champion", at(30))
    assert before.packages == (ONE, THREE)
    assert "nobody knows since when" in str(before.why)
    assert answering(entries, "champion", at(61)).packages == (THREE,)


def accepted(sha256: str, name: str, **sent: str | None) -> tuple[float, Kind, str, dict[str, Any]]:
    details = {
        "key": f"flight-delay/incoming/{name}",
        "version": f"version-of-{name}",
        "origin": "upload",
        "rows": 26398,
        "bytes": 9,
        "first_event": "2013-01-01T05:00:00+00:00",
        "last_event": "2013-01-31T23:00:00+00:00",
    }
    return -60, Kind.DATASET_ACCEPTED, sha256, details | sent


SENT = {"uploaded_by": "123456789012", "uploaded_at": "2026-11-21T11:00:00+00:00", "request": "N4N7"}


def trained(number: int, hashes: list[str], package: str | None) -> list[tuple[float, Kind, str, dict[str, Any]]]:
    execution = EXECUTION.format(number)
    details = {"execution": execution, "cause": "upload", "dataset": "c" * 64, "datasets": hashes, "champion": None}
    began = (-50.0 + number, Kind.TRAINING_STARTED, f"{number}" * 64, details)
    if package is None:
        return [began, (-40.0 + number, Kind.TRAINING_FAILED, execution, {"refused": True, "reasons": ["auc"]})]
    return [began, (-40.0 + number, Kind.TRAINING_SUCCEEDED, execution, {"package": package, "hours": 0.25})]


HISTORY = ledger(
    accepted(JANUARY, "january.csv", **SENT),
    *trained(1, [JANUARY], ONE),
    accepted(FEBRUARY, "february.csv"),
    *trained(2, [JANUARY, FEBRUARY], TWO),
    *trained(3, [JANUARY, FEBRUARY], None),
    (-10, Kind.PACKAGE_APPROVED, f"{ONE}#{at(-10).isoformat()}", {"package": ONE, "by": "arn:a", "reason": "first"}),
    *SECOND,
    (90, Kind.MONITORED, "w1", {"package": TWO, "rows": 700, "own_rows": 500}),
    (150, Kind.MONITORED, "w2", {"package": TWO, "rows": 250, "own_rows": 250}),
)


def test_back_from_a_package_to_who_sent_its_files_by_the_ledger_alone() -> None:
    steps = back(HISTORY, ONE, None, "the registry has it no more")
    assert [(step.step, step.known) for step in steps] == [
        ("package", False),
        ("approval", True),
        ("gates", True),
        ("training", True),
        ("code", False),
        ("dataset", True),
        ("file", True),
    ]
    assert {step.package for step in steps} == {ONE}
    package, approval, _, training, _, dataset, file = steps
    assert "the registry has it no more" in package.what
    assert (approval.facts["by"], approval.facts["reason"]) == ("arn:a", "first")
    assert (training.facts["execution"], training.facts["hours"]) == (EXECUTION.format(1), 0.25)
    assert dataset.facts["sha256"] == JANUARY
    assert file.facts == {"key": "flight-delay/incoming/january.csv", "version": "version-of-january.csv", **SENT}
    assert file.at == at(-60)
    assert file.known_from == "ledger #1"


def test_who_sent_a_file_is_unknown_where_nobody_told() -> None:
    _, file = datasets(HISTORY, [FEBRUARY])
    assert not file.known
    assert "S3's event was lost" in file.what
    (lost,) = datasets(HISTORY, ["d" * 64])
    assert "neither the ledger nor the data bucket" in lost.what
    (untold,) = datasets(HISTORY, None)
    assert not untold.known


def test_a_package_that_nobody_trained_says_so() -> None:
    steps = {step.step: step for step in back(HISTORY, THREE, None, "gone")}
    assert not any(step.known for step in steps.values())
    assert "registered by hand" in steps["training"].what


def test_forward_from_a_dataset_to_every_version_and_what_it_answered() -> None:
    steps = list(forward(HISTORY, JANUARY))
    assert [(step.step, step.package) for step in steps] == [
        ("training", None),
        ("package", ONE),
        ("live", ONE),
        ("live", ONE),
        ("training", None),
        ("package", TWO),
        ("live", TWO),
        ("live", TWO),
        ("predictions", TWO),
        ("training", None),
        ("package", None),
    ]
    assert steps[8].facts == {"rows": 750, "windows": 2}
    assert "refused" in steps[10].what or "training_failed" in steps[10].what
    assert [step.package for step in forward(HISTORY, FEBRUARY) if step.step == "package"] == [TWO, None]


def test_what_was_never_live_says_so() -> None:
    (step,) = lived(HISTORY, THREE)
    assert "never live" in step.what
