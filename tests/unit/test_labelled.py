"""Labels and captures in any order, twice, corrected: the joined table is that of the sorted delivery of each once."""

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria import contract, labelled
from noria.feedback import asked_of_a_part, dataset_key, origin, superseded
from noria.labelled import Joined, dataset, hard_cases, join_day, judged_until, newest, predictions
from noria.labels import (
    Arrival,
    Foreign,
    LabelsError,
    LabelsFile,
    coverage,
    disagreement,
    last_words,
    merge,
    other_class,
    predictions_of,
    sift,
    versions_of,
    words,
)
from noria.profile import Source
from noria.spec import ModelSpec, Task
from noria.sql import connect, cursor
from noria.training import Cause, Champion, TrainingDataset, TrainingRequest
from tests.unit.engine_data import SMALL, record, spec_of, write

DAY = datetime(2026, 11, 21, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)


# --- a world without a bucket


@dataclass(frozen=True)
class Told:
    """A labels file as it is delivered: rows of (inference id, row, label, clock or None)."""

    version: str
    at: datetime
    rows: tuple[tuple[str, int, int, datetime | None], ...]
    sequencer: str = ""


@dataclass(frozen=True)
class Captured:
    """A request of two rows that a variant answered."""

    variant: str
    inference_id: str
    at: datetime
    scores: tuple[float, float]


@dataclass
class World:
    """What the bucket would hold, as files."""

    folder: Path
    spec: ModelSpec = field(default_factory=spec_of)
    captured: dict[str, list[Path]] = field(default_factory=dict)
    told: dict[str, Path] = field(default_factory=dict)
    joined: Path | None = None
    day: datetime = DAY
    names: Any = field(default_factory=itertools.count)

    def path(self, ending: str) -> Path:
        return self.folder / f"{next(self.names)}.{ending}"

    def deliver(self, what: Told | Captured, *, joins: bool = True) -> Joined | None:
        if isinstance(what, Captured):
            answers = [{"prediction": int(score >= 0.5), "score": score} for score in what.scores]
            line = record(
                f"event of {what.inference_id}",
                [{"x": 1.0, "size": 3, "color": "red"}, {"x": 2.0, "size": 4, "color": "blue"}],
                answers,
                inference_id=what.inference_id,
                time=what.at.isoformat(),
            )
            self.captured.setdefault(what.variant, []).append(write(self.path("jsonl"), [line]))
        else:
            said, day = self.path("parquet"), f"{what.at:%Y-%m-%d}"
            words(self.file(what), self.spec, Arrival(what.at, what.version, what.sequencer), to=said, resources=SMALL)
            merged = self.path("parquet")
            merge([said, *([self.told[day]] if day in self.told else [])], self.spec, to=merged, resources=SMALL)
            self.told[day] = merged
        return self.join() if joins else None

    def file(self, what: Told) -> LabelsFile:
        lines = (f"{i},{row},{label},{at.isoformat() if at else ''}" for i, row, label, at in what.rows)
        return LabelsFile(write(self.path("csv"), ["inference_id,row,y,labelled_at", *lines]), "labels.csv")

    def predicted(self) -> Path:
        to = self.path("parquet")
        sources = {
            variant: Source.captured(*paths, since=self.day, until=self.day + timedelta(days=1))
            for variant, paths in self.captured.items()
        }
        predictions(sources, self.spec, to=to, resources=SMALL)
        return to

    def join(self) -> Joined:
        to = self.path("parquet")
        told = list(self.told.values())
        found = join_day(self.predicted(), told, self.joined, self.spec, to=to, resources=SMALL)
        self.joined = to
        return found

    def table(self) -> dict[tuple[str, str, int], str]:
        assert self.joined
        with cursor(SMALL) as db:
            rows = db.execute(
                f"SELECT variant, inference_id, row, target FROM read_parquet('{self.joined}')"  # noqa: S608
            ).fetchall()
        return {(variant, i, row): label for variant, i, row, label in rows}


def expected(deliveries: Sequence[Told | Captured]) -> dict[tuple[str, str, int], str]:
    """The joined table by hand."""
    said: dict[tuple[str, int], set[Any]] = {}
    for told in deliveries:
        if isinstance(told, Told):
            for i, row, label, clock in told.rows:
                key = (clock or told.at, told.at, told.sequencer, told.version, str(label))
                said.setdefault((i, row), set()).add(key)
    return {
        (made.variant, made.inference_id, row): max(said_of_it)[-1]
        for made in deliveries
        if isinstance(made, Captured)
        for row in (0, 1)
        if (said_of_it := said.get((made.inference_id, row)))
    }


IDS = ("a", "b")
moments = st.integers(0, 3).map(lambda hours: NOON + timedelta(hours=hours))


@st.composite
def a_labels_file(draw: st.DrawFn) -> Told:
    places = draw(st.lists(st.tuples(st.sampled_from([*IDS, "nobody"]), st.integers(0, 1)), min_size=1, unique=True))
    rows = tuple((i, row, draw(st.integers(0, 1)), draw(st.none() | moments)) for i, row in places)
    return Told(draw(st.uuids()).hex, draw(moments) + timedelta(hours=draw(st.sampled_from([0, 20]))), rows)


requests = st.builds(
    Captured,
    st.sampled_from(["champion", "challenger", "shadow"]),
    st.sampled_from(IDS),
    moments,
    st.tuples(st.sampled_from([0.1, 0.9]), st.sampled_from([0.2, 0.8])),
)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    told=st.lists(a_labels_file(), min_size=1, max_size=2),
    made=st.lists(requests, min_size=1, max_size=3, unique_by=lambda c: (c.variant, c.inference_id, c.at)),
    data=st.data(),
)
def test_any_order_and_repetition_gives_the_table_of_the_sorted_delivery_of_each_once(
    told: list[Told], made: list[Captured], data: st.DataObject
) -> None:
    once: list[Told | Captured] = [*made, *told]
    again = data.draw(st.lists(st.sampled_from(once), max_size=1))
    shuffled = data.draw(st.permutations([*once, *again]))
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        ordered, mixed = World(Path(first)), World(Path(second))
        for what in once:
            ordered.deliver(what, joins=False)
        for what in shuffled:
            mixed.deliver(what, joins=data.draw(st.booleans()))
        one, other = ordered.join(), mixed.join()
        assert (one.rows, one.state) == (other.rows, other.state)
        assert ordered.join() == one
        assert ordered.table() == mixed.table() == expected(once)


# --- which word is the last


def test_the_last_word_is_the_one_with_the_newest_clock_and_without_one_the_last_to_arrive(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.deliver(Captured("champion", "a", NOON, (0.9, 0.9)), joins=False)
    for told in (
        Told("one", NOON + timedelta(hours=5), (("a", 0, 1, NOON + timedelta(hours=3)), ("a", 1, 0, None))),
        Told("two", NOON + timedelta(hours=6), (("a", 0, 0, NOON + timedelta(hours=2)), ("a", 1, 1, None))),
    ):
        world.deliver(told)
    assert world.table() == {("champion", "a", 0): "1", ("champion", "a", 1): "1"}


def test_of_two_versions_in_one_second_the_one_that_s3_calls_the_later_is_the_last(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.deliver(Captured("champion", "a", NOON, (0.9, 0.9)), joins=False)
    for version, label, sequencer in (("zz", 0, "0061E32A"), ("aa", 1, "0061E32B")):
        world.deliver(Told(version, NOON, (("a", 0, label, None),), sequencer))
    assert world.table() == {("champion", "a", 0): "1"}


def test_a_correction_comes_through_where_captures_have_expired_and_old_words_are_not_read(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.deliver(Captured("champion", "a", NOON, (0.9, 0.1)), joins=False)
    world.deliver(Told("one", NOON, (("a", 0, 0, None),)))
    world.captured, world.told = {}, {}
    found = world.deliver(Told("two", NOON + timedelta(days=300), (("a", 0, 1, None), ("a", 1, 1, None))))
    assert world.table() == {("champion", "a", 0): "1"}  # nobody knew row 1 to be labelled while it was there
    assert found is not None
    assert (found.rows, found.number) == (1, 2)


def test_labels_files_that_have_clocks_may_tell_a_history(tmp_path: Path) -> None:
    world = World(tmp_path)
    rows = tuple(("a", 0, label, NOON + timedelta(hours=hour)) for hour, label in ((0, 0), (2, 1), (1, 0)))
    path = tmp_path / "said.parquet"
    assert words(world.file(Told("v", NOON, rows)), world.spec, Arrival(NOON, "v"), to=path) == 1
    told = last_words([path], world.spec, to=tmp_path / "labels.parquet")
    with cursor(SMALL) as db:
        assert db.execute(f"FROM read_parquet('{told.path}')").fetchall() == [("a", 0, "1")]


@pytest.mark.parametrize(
    ("clock", "problem"),
    [("yesterday", "is no time"), ((NOON + timedelta(days=2)).isoformat(), "is in the future")],
)
def test_a_clock_that_could_never_be_corrected_is_refused(clock: str, problem: str, tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", ["inference_id,y,labelled_at", f"a,1,{clock}"])
    with pytest.raises(LabelsError, match=problem) as caught:
        words(LabelsFile(path, "labels.csv"), spec_of(), Arrival(NOON, "v"), to=tmp_path / "said.parquet")
    assert clock in str(caught.value)


def test_labels_that_the_model_does_not_know_by_that_name_are_told(tmp_path: Path) -> None:
    path, said = write(tmp_path / "l.csv", ["inference_id,y", "a,yes", "b,no"]), tmp_path / "said.parquet"
    words(LabelsFile(path, "l.csv"), spec_of(), Arrival(NOON, "v"), to=said)
    problem = disagreement(said, {"0", "1"}, spec_of(), name="l.csv")
    assert problem is not None
    assert "'y' holds no, yes where the model predicts 0, 1" in problem
    assert disagreement(said, {"yes"}, spec_of(), name="l.csv") is None
    assert disagreement(said, set(), spec_of(), name="l.csv") is None


def test_a_class_as_long_as_its_file_is_named_in_short(tmp_path: Path) -> None:
    path, said = write(tmp_path / "l.csv", ["inference_id,y", f"a,{'x' * 500_000}"]), tmp_path / "said.parquet"
    words(LabelsFile(path, "l.csv"), spec_of(), Arrival(NOON, "v"), to=said)
    problem = disagreement(said, {"0", "1"}, spec_of(), name="l.csv")
    assert problem is not None
    assert "xx… where the model predicts 0, 1" in problem
    assert len(problem) < 1000
    (foreign,) = sift(said, {"0", "1"}, spec_of())
    assert [len(named) for named in foreign.classes] == [80]


# --- what can be judged


def waiting_from(folder: Path, labelled_ids: str, *, settled: datetime) -> datetime | None:
    """Five predictions, a an hour; `labelled_ids` have their label."""
    world = World(folder)
    for hour, name in enumerate("abcde"):
        world.deliver(Captured("champion", name, DAY + timedelta(hours=hour), (0.9, 0.1)), joins=False)
        world.deliver(Captured("shadow", f"other {name}", DAY + timedelta(hours=hour), (0.9, 0.1)), joins=False)
    for name in labelled_ids:
        world.deliver(Told(name, NOON, ((name, 0, 1, None), (name, 1, 1, None))), joins=False)
    told = [*world.told.values()]
    return judged_until(
        [world.predicted()], told, world.spec, variant="champion", since=DAY, settled=settled, resources=SMALL
    )


@pytest.mark.parametrize(
    ("labelled_ids", "settled", "waits"),
    [
        ("abcde", 0, None),  # nothing waits
        ("abd", 0, 2),  # what came after c is known early for a reason
        ("cde", 0, None),  # nobody tells of what came before the first
        ("ce", 0, 3),
        ("ace", 2, 3),  # b had its time
        ("a", 5, None),  # all had theirs
        ("", 0, None),
    ],
)
def test_predictions_are_judged_up_to_the_first_that_still_waits_for_its_label(
    tmp_path: Path, labelled_ids: str, settled: int, waits: int | None
) -> None:
    found = waiting_from(tmp_path, labelled_ids, settled=DAY + timedelta(hours=settled))
    assert found == (None if waits is None else DAY + timedelta(hours=waits))


def test_what_is_known_early_does_not_speak_for_what_is_known_late(tmp_path: Path) -> None:
    """Bad outcomes take five days to be known, good ones none: what is judged holds as many as were made."""
    draw, spec, now, within = random.Random(11), spec_of(), DAY + timedelta(days=14), timedelta(days=7)  # noqa: S311
    made = [(f"r{n}", DAY + timedelta(days=14) * n / 2000, draw.random() < 0.2) for n in range(2000)]
    with connect(SMALL) as db:
        db.execute("CREATE TABLE p (variant VARCHAR, inference_id VARCHAR, row BIGINT, time TIMESTAMP)")
        db.executemany(
            "INSERT INTO p VALUES ('champion', ?, 0, ?)", [(i, at.replace(tzinfo=None)) for i, at, _ in made]
        )
        db.table("p").write_parquet(str(tmp_path / "predicted.parquet"))
    known = [(i, at, bad) for i, at, bad in made if not bad or at + timedelta(days=5) <= now]
    file = write(tmp_path / "labels.csv", ["inference_id,y", *(f"{i},{int(bad)}" for i, _, bad in known)])
    said = tmp_path / "said.parquet"
    words(LabelsFile(file, "labels.csv"), spec, Arrival(now, "v"), to=said, resources=SMALL)
    until = judged_until(
        [tmp_path / "predicted.parquet"], [said], spec, variant="champion", since=DAY, settled=now - within
    )
    assert until
    assert now - timedelta(days=5) <= until < now - timedelta(days=4.9)
    share = sum(bad for _, _, bad in known) / len(known)
    judged = [bad for _, at, bad in known if at < until]
    truth = [bad for _, at, bad in made if at < until]
    assert judged == truth
    assert sum(judged) / len(judged) > 1.2 * share


# --- classes that nobody knew yet


def test_words_of_classes_that_the_model_does_not_have_are_left_out_and_their_file_is_named(tmp_path: Path) -> None:
    spec, merged = spec_of(), tmp_path / "merged.parquet"
    files = {"early.csv": ["a,0,yes", "b,0,no"], "mixed.csv": ["c,0,1", "d,0,no"], "good.csv": ["a,0,1", "e,0,0"]}
    parts = []
    for name, rows in files.items():
        file = write(tmp_path / name, ["inference_id,row,y", *rows])
        parts.append(tmp_path / f"{name}.parquet")
        arrival = Arrival(NOON, f"version of {name}", key=f"m/labels/{name}")
        words(LabelsFile(file, name), spec, arrival, to=parts[-1], resources=SMALL)
    merge(parts, spec, to=merged, resources=SMALL)
    assert other_class([merged], "1", spec) == "0"
    assert other_class([merged], "0", spec) == "1"
    assert other_class([merged], "yes", spec) == "no"
    assert other_class([merged], "red", spec) is None
    assert sift(merged, {"0", "1"}, spec) == [
        Foreign("m/labels/early.csv", "version of early.csv", ("no", "yes"), 2),
        Foreign("m/labels/mixed.csv", "version of mixed.csv", ("no",), 1),
    ]
    assert sift(merged, {"0", "1"}, spec) == []
    assert predictions_of(merged) == 3
    assert versions_of(merged, spec, most=5) == ["version of good.csv", "version of mixed.csv"]


# --- coverage


def test_coverage_counts_what_has_a_label_and_how_late_the_first_came(tmp_path: Path) -> None:
    world = World(tmp_path)
    for hour, name in enumerate("abcd"):
        world.deliver(Captured("champion", name, DAY + timedelta(hours=hour), (0.9, 0.1)), joins=False)
    arrivals = {"a": DAY + timedelta(hours=2), "b": DAY + timedelta(hours=5)}
    for name, at in arrivals.items():
        world.deliver(Told(f"first of {name}", at, ((name, 0, 1, None), (name, 1, 1, None))), joins=False)
        world.deliver(Told(f"second of {name}", at + timedelta(hours=9), ((name, 0, 0, None),)), joins=False)
    source = Source.captured(*world.captured["champion"], since=DAY, until=DAY + timedelta(hours=3))
    predicted, known, p50, p95 = coverage(source, list(world.told.values()), world.spec, resources=SMALL)
    assert (predicted, known) == (6, 4)
    assert [p50, p95] == pytest.approx([3.0, 4.0])  # a after 2 hours, b after 4, two rows each
    assert coverage(Source.captured(), [], world.spec, resources=SMALL) == (0, 0, None, None)


# --- training data


def test_labelled_requests_become_rows_of_the_contract_once_whoever_answered(tmp_path: Path) -> None:
    world = World(tmp_path, spec_of(id="key", min_rows=100))
    for variant in ("champion", "shadow"):
        world.deliver(Captured(variant, "a", NOON, (0.9, 0.1)))
    world.deliver(Told("v", NOON, (("a", 0, 1, None), ("a", 1, 1, None))))
    assert world.joined
    made = tmp_path / "made.parquet"
    assert dataset(world.joined, None, world.spec, number=1, to=made, resources=SMALL).rows == 2
    with cursor(SMALL) as db:
        rows = db.execute(f"FROM read_parquet('{made}')").fetchall()
    noon = NOON.replace(tzinfo=None)
    assert rows == [("a", noon, 1.0, 3, "red", "1"), ("a#1", noon, 2.0, 4, "blue", "1")]
    asked = asked_of_a_part(world.spec)
    report = contract.check(made, asked, filename="made.parquet", now=NOON, resources=SMALL)
    assert report.accepted, report.to_text()
    assert not contract.check(made, world.spec, filename="made.parquet", now=NOON, resources=SMALL).accepted


def test_a_request_that_came_again_on_the_next_day_is_learnt_from_there_alone(tmp_path: Path) -> None:
    spec, midnight, made = spec_of(), DAY + timedelta(days=1), tmp_path / "made.parquet"
    days = []
    for place, (ids, at) in enumerate([("ab", midnight - timedelta(minutes=1)), ("bc", midnight)]):
        (folder := tmp_path / str(place)).mkdir()
        world = World(folder, spec, day=at.replace(hour=0, minute=0))
        for inference_id in ids:
            world.deliver(Captured("champion", inference_id, at, (0.9, 0.1)), joins=False)
        world.deliver(Told("v", NOON, tuple((i, row, 1, None) for i in "abc" for row in (0, 1))))
        days.append(world.joined)
    first, second = days
    assert first
    assert second
    assert {i for _, i, _ in World(tmp_path, joined=first).table()} == {"a", "b"}
    assert dataset(first, second, spec, number=1, to=made, resources=SMALL).rows == 2
    assert dataset(second, None, spec, number=1, to=made, resources=SMALL).rows == 4


def test_requests_that_no_upload_could_hold_are_not_learnt_from(tmp_path: Path) -> None:
    features = {
        "x": {"type": "number", "max": 1.5},
        "size": {"type": "integer"},
        "color": {"type": "category", "values": ["red", "blue"]},
    }
    world = World(tmp_path, spec_of(features=features))
    world.deliver(Captured("champion", "a", NOON, (0.9, 0.1)), joins=False)
    world.deliver(Told("v", NOON, (("a", 0, 1, None), ("a", 1, 1, None))))
    assert world.joined
    assert dataset(world.joined, None, world.spec, number=1, to=tmp_path / "made.parquet", resources=SMALL).rows == 1


def test_of_a_day_only_the_latest_is_trained_on() -> None:
    day = NOON.date()
    keys = [dataset_key("m", day, number=number, state=f"{number % 7:016x}") for number in (9, 10, 100)]
    other = dataset_key("m", day + timedelta(days=1), number=1, state="0" * 16)
    uploads = ["m/incoming/a.csv", "m/incoming/b.csv"]
    assert superseded([*keys, other, *uploads]) == set(keys[:2])
    assert {origin(source) for source in [*keys, other]} == {"labels"}
    assert {origin(source) for source in uploads} == {"upload"}


def day_of_labels(number: int, rows: int, day: datetime = NOON) -> TrainingDataset:
    sha = f"{number:064x}"
    source = dataset_key("m", day.date(), number=number, state=f"{number:016x}")
    return TrainingDataset(sha256=sha, key=sha, source_key=source, rows=rows, first_event=day, last_event=day)


def test_a_training_counts_as_fresh_what_a_day_has_more_than_the_champion_saw() -> None:
    other_day = NOON + timedelta(days=1)
    datasets = [day_of_labels(1, 40), day_of_labels(2, 100), day_of_labels(3, 130), day_of_labels(4, 7, other_day)]
    upload = TrainingDataset(sha256="f" * 64, key="u", rows=1000, first_event=DAY, last_event=DAY)
    request = TrainingRequest.of(
        model="m",
        cause=Cause(kind="hand", identity="one", text="by hand"),
        datasets=[*datasets, upload],
        champion=Champion(package="p", model_key="m/runs/model.tar.gz"),
        seen={upload.sha256, datasets[1].sha256},
        now=NOON,
    )
    assert {dataset.sha256 for dataset in request.datasets} == {upload.sha256, datasets[2].sha256, datasets[3].sha256}
    assert request.fresh_rows == 30 + 7


# --- hard cases


def scored(folder: Path, spec: ModelSpec, answers: Mapping[str, dict[str, Any]]) -> Path:
    lines = [
        record(name, [{"x": 1.0, "size": 2, "color": "red"}], [answer], inference_id=name, time=NOON.isoformat())
        for name, answer in answers.items()
    ]
    to = folder / "predicted.parquet"
    predictions({"champion": Source.captured(write(folder / "c.jsonl", lines))}, spec, to=to, resources=SMALL)
    return to


def told(folder: Path, spec: ModelSpec, labels: Mapping[str, Any]) -> Path:
    path = write(folder / "l.csv", ["inference_id,y", *(f"{name},{label}" for name, label in labels.items())])
    words(LabelsFile(path, "l.csv"), spec, Arrival(NOON, "v"), to=folder / "said.parquet", resources=SMALL)
    return folder / "said.parquet"


BINARY = {
    name: {"prediction": int(p >= 0.5), "score": p}
    for name, p in zip("abcdef", (0.9, 0.45, 0.6, 0.99, 0.2, 0.05), strict=True)
}
MULTI = {
    "a": {"prediction": "x", "scores": {"x": 0.5, "y": 0.3, "z": 0.2}},
    "b": {"prediction": "x", "scores": {"x": 0.9, "y": 0.1, "z": 0.0}},
    "c": {"prediction": "y", "scores": {"x": 0.2, "y": 0.8, "z": 0.0}},
    "d": {"prediction": "z", "scores": {"x": 0.3, "y": 0.3, "z": 0.4}},
}
NUMBERS = {"a": {"prediction": 1.0}, "b": {"prediction": 5.0}, "c": {"prediction": 2.0}}


@pytest.mark.parametrize(
    ("task", "answers", "labels", "found"),
    [
        (
            Task.BINARY,
            BINARY,
            {"a": 0, "d": 0, "e": 0, "f": 1},
            ({"b": 0.55, "c": 0.6}, {"d": 0.01, "f": 0.05, "a": 0.1}),
        ),
        (Task.MULTICLASS, MULTI, {"b": "z", "c": "x"}, ({"d": 0.4, "a": 0.5}, {"b": 0.0, "c": 0.2})),
        (Task.REGRESSION, NUMBERS, {"a": 1.5, "b": 9.0}, ({}, {"b": 4.0, "a": 0.5})),
    ],
    ids=["binary", "multiclass", "regression"],
)
def test_hard_cases_are_the_least_sure_without_a_label_and_the_surest_that_were_wrong(
    task: Task,
    answers: Mapping[str, dict[str, Any]],
    labels: Mapping[str, Any],
    found: tuple[dict[str, float], dict[str, float]],
    tmp_path: Path,
) -> None:
    spec = spec_of(task)
    predicted, said = scored(tmp_path, spec, answers), told(tmp_path, spec, labels)
    cases = hard_cases([predicted], [said], spec, variant="champion", since=DAY, until=NOON, resources=SMALL)
    for listed, expected_ones in zip((cases.unsure, cases.surprising), found, strict=True):
        assert [case.inference_id for case in listed] == list(expected_ones)
        assert {case.inference_id: case.measure for case in listed} == pytest.approx(expected_ones)
    assert all(case.label is None for case in cases.unsure)
    late = hard_cases(
        [predicted], [said], spec, variant="champion", since=NOON + timedelta(hours=1), until=NOON, resources=SMALL
    )
    assert (late.unsure, late.surprising) == ((), ())


def test_sensitive_values_of_hard_cases_are_hidden(tmp_path: Path) -> None:
    spec = spec_of(
        features={
            "x": {"type": "number", "sensitive": True},
            "size": {"type": "integer"},
            "color": {"type": "category", "sensitive": True},
        }
    )
    predicted, said = scored(tmp_path, spec, BINARY), told(tmp_path, spec, {"a": 0})
    found = hard_cases([predicted], [said], spec, variant="champion", since=DAY, until=NOON, resources=SMALL)
    for case in (*found.unsure, *found.surprising):
        assert case.features == {"x": "***", "size": 2.0, "color": "***"}
    assert '"red"' not in json.dumps(found.model_dump(mode="json"))


# --- small doors


def test_the_newest_labelled_prediction_is_of_the_version_that_is_live(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.deliver(Captured("champion", "a", NOON, (0.9, 0.1)), joins=False)
    world.deliver(Captured("challenger", "b", NOON + timedelta(hours=1), (0.9, 0.1)))
    world.deliver(Told("v", NOON, (("a", 0, 1, None), ("b", 0, 1, None))))
    assert world.joined
    assert newest([world.joined], variant="champion", since=None, resources=SMALL) == NOON
    assert newest([world.joined], variant="champion", since=NOON + timedelta(minutes=1), resources=SMALL) is None
    assert newest([], variant="champion", since=None) is None
    assert labelled.classes([world.predicted()], variant="challenger", resources=SMALL) == {"0", "1"}
