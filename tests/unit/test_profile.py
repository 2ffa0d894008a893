"""A profile of parts is the profile of the whole, wherever the rows come from and whatever the columns are called."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria import tally
from noria.profile import (
    ColumnProfile,
    Cut,
    Edges,
    Kind,
    Profile,
    SegmentCount,
    Source,
    column,
    column_of,
    edges,
    profile,
)
from noria.sketch import BOUND, Sketch
from noria.spec import ModelSpec, Task
from noria.sql import Resources, connect, cursor
from tests.unit.engine_data import ODD, SMALL, record, spec_of, write

Row = dict[str, Any]
SPEC = spec_of()
CUT = Edges(
    features={
        "x": Cut(kind="number", edges=(-1.0, 0.0, 2.5)),
        "size": Cut(kind="number", edges=(1.0, 3.0)),
        "color": Cut(kind="category", categories=("red", "blue")),
    }
)
ROWS: list[Row] = [
    {"x": -1.0, "size": 1, "color": "red"},
    {"x": 2.5, "size": 4, "color": "blue"},
    {"x": None, "size": 2, "color": "green"},
    {"x": 7.25, "size": None, "color": None},
    {"x": -1.5, "size": 1, "color": "red"},
]


def csv_file(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> Path:
    def field(value: object) -> str:
        return "" if value is None else '"' + str(value).replace('"', '""') + '"'

    return write(path, [",".join(map(field, columns)), *(",".join(field(row[c]) for c in columns) for row in rows)])


def parquet_file(path: Path, rows: Sequence[Row]) -> Path:
    csv = csv_file(path.with_suffix(".csv"), rows, [*SPEC.features])
    with cursor(SMALL) as db:
        db.sql(f"FROM read_csv('{csv}')").write_parquet(str(path))
    return path


def captured_file(path: Path, rows: Sequence[Row], **change: Any) -> Path:
    answer = {"prediction": 1, "score": 0.75}
    return write(path, [record(f"event-{n}", [row], [answer], **change) for n, row in enumerate(rows)])


def described(source: Source, spec: ModelSpec = SPEC, cut: Edges | None = CUT) -> Profile:
    return profile(source, spec, cut, resources=SMALL)


# --- what is counted


def test_values_are_counted_in_bins_that_hold_their_upper_edge(tmp_path: Path) -> None:
    found = described(Source.files(csv_file(tmp_path / "f.csv", ROWS, [*SPEC.features])))
    x, size, color = (found.features[name] for name in SPEC.features)
    assert found.rows == 5
    assert (x.missing, x.counts, x.min, x.max, x.sum) == (1, (2, 0, 1, 1), -1.5, 7.25, 7.25)
    assert x.bins() == {"x ≤ -1": 2, "-1 < x ≤ 0": 0, "0 < x ≤ 2.5": 1, "x > 2.5": 1}
    assert (size.missing, size.counts, size.mean) == (1, (2, 1, 1), 2.0)
    assert (color.missing, color.categories, color.other, color.new) == (1, {"red": 2, "blue": 1}, 1, ("green",))
    assert color.bins() == {"red": 2, "blue": 1, "(other)": 1}
    assert found.prediction is None
    assert found.edges == CUT


def test_few_values_say_what_many_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where values are few they are counted, and all else follows; else each row is asked for its bin."""
    names = ("value", "n", "place", "tally")
    spec = spec_of(features={name: {"type": "number" if name == "n" else "category"} for name in names}, segments=["n"])
    rows = [{**dict.fromkeys(names, f"c{n % 130:03}"), "n": n * n % 31 / 4 if n % 7 else None} for n in range(400)]
    few, other = (csv_file(tmp_path / f"{n}.csv", part, names) for n, part in enumerate((rows, rows[:9])))
    with cursor(SMALL) as db:
        db.sql(f"FROM read_csv('{few}')").write_parquet(str(tmp_path / "few.parquet"))

    def said() -> list[Profile]:
        alone = [described(Source.files(path), spec, None) for path in (few, tmp_path / "few.parquet")]
        return [
            *alone,
            described(Source.files(few), spec, alone[0].edges),
            described(Source.files(few, other), spec, None),
        ]

    counted = said()
    monkeypatch.setattr(tally, "MOST", 0)
    assert said() == counted
    assert counted[0] == counted[1] == counted[2]
    assert [len(cut.edges) for cut in counted[0].edges.features.values()] == [0, 9, 0, 0]


def said_both_ways(said: Callable[[], Profile], monkeypatch: pytest.MonkeyPatch) -> tuple[Profile, Profile]:
    """From the values and how often each comes, and from each row."""
    counted = said()
    monkeypatch.setattr(tally, "MOST", 0)
    return counted, said()


def test_numbers_that_name_categories_are_counted_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(features={name: {"type": "category"} for name in ("code", "big", "zero")})
    path = tmp_path / "f.parquet"
    with cursor(SMALL) as db:
        rows = "VALUES (1, 9007199254740992, 0::DOUBLE), (2, 9007199254740993, '-0'), (1, NULL, 0)"
        db.sql(f"FROM ({rows}) t(code, big, zero)").write_parquet(str(path))
    counted, asked = said_both_ways(lambda: described(Source.files(path), spec, None), monkeypatch)
    assert counted == asked
    assert [column.categories for column in counted.features.values()] == [
        {"1": 2, "2": 1},
        {"9007199254740992": 1, "9007199254740993": 1},
        {"0.0": 2, "-0.0": 1},
    ]


def test_a_number_that_is_written_in_two_ways_is_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(features={"n": {"type": "number"}}, segments=["n"])
    path = csv_file(tmp_path / "f.csv", [{"n": n} for n in ("1", "1.0", "1.00", "2", "2", "4", None)], ["n"])
    counted, asked = said_both_ways(lambda: described(Source.files(path), spec, None), monkeypatch)
    assert counted == asked
    assert counted.features["n"].edges == (0.0, 1.0, 2.0, 4.0)
    assert {value: count.rows for value, count in counted.segments["n"].items()} == {"1.0": 3, "2.0": 2, "4.0": 1}


@pytest.mark.parametrize("values", [["1e308"] * 3, ["1e308", "9e307"], ["1e308", "-1e308"] * 3])
def test_a_sum_beyond_all_doubles_is_not_finite(
    values: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv_file(tmp_path / "f.csv", [{**ROWS[0], "x": value} for value in sorted(values)], [*SPEC.features])
    columns = [found.features["x"] for found in said_both_ways(lambda: described(Source.files(path)), monkeypatch)]
    assert not any(math.isfinite(column.sum) for column in columns)
    counted, asked = (column.model_copy(update={"sum": 0.0}) for column in columns)
    assert counted == asked


def test_values_too_long_to_be_counted_in_memory_are_described_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, cut = spec_of(features={"note": {"type": "category"}}), Edges(features={"note": Cut(kind="category")})
    path, little = tmp_path / "f.parquet", Resources(memory_mb=64, threads=1)
    with connect(SMALL) as db:
        long = "SELECT i || repeat('x', 10000) AS note FROM range(8000) t(i)"
        db.sql(long).write_parquet(str(path), row_group_size=2048)
    counted, asked = said_both_ways(lambda: profile(Source.files(path), spec, cut, resources=little), monkeypatch)
    assert counted == asked
    assert (counted.rows, counted.features["note"].other) == (8_000, 8_000)


def test_what_is_no_finite_number_is_missing(tmp_path: Path) -> None:
    nothing = ["", "NaN", "inf", "-inf", "1e999", "warm", "1,5"]
    path = csv_file(tmp_path / "f.csv", [{**ROWS[0], "x": value} for value in nothing], [*SPEC.features])
    x = described(Source.files(path)).features["x"]
    assert (x.missing, sum(x.counts), x.min, x.max, x.sum) == (len(nothing), 0, None, None, 0.0)


def test_csv_parquet_and_captured_requests_say_the_same(tmp_path: Path) -> None:
    of_csv = described(Source.files(csv_file(tmp_path / "f.csv", ROWS, [*SPEC.features])))
    of_parquet = described(Source.files(parquet_file(tmp_path / "f.parquet", ROWS)))
    of_requests = described(Source.captured(captured_file(tmp_path / "f.jsonl", ROWS)))
    assert of_csv == of_parquet == of_requests.model_copy(update={"prediction": None, "confidence": None})


def test_files_of_both_kinds_are_one_set_of_rows_whatever_the_order_of_columns(tmp_path: Path) -> None:
    files = (
        csv_file(tmp_path / "a.csv", ROWS, ["color", "x", "size"]),
        csv_file(tmp_path / "b.csv", ROWS, ["size", "x", "color"]),
        parquet_file(tmp_path / "f.parquet", ROWS),
    )
    one = described(Source.files(files[2]))
    assert described(Source.files(*files)) == one.merge(one).merge(one)


def test_a_file_without_a_feature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column color"):
        described(Source.files(csv_file(tmp_path / "f.csv", ROWS, ["x", "size"])))


@pytest.mark.parametrize("source", [Source.files(), Source.captured()], ids=["files", "captured"])
def test_of_no_rows_there_is_a_profile_too(source: Source) -> None:
    for cut in (CUT, None):
        found = described(source, cut=cut)
        assert (found.rows, found.malformed) == (0, 0)
        assert all(column.missing == 0 and column.mean is None for column in found.features.values())
        assert found.merge(found) == found


def test_columns_and_categories_may_be_called_anything(tmp_path: Path) -> None:
    spec = spec_of(features={name: {"type": "category"} for name in ODD})
    path = csv_file(tmp_path / "it's a [file]*.csv", [{name: name for name in ODD}], ODD)
    captured = captured_file(tmp_path / "f.jsonl", [{name: name for name in ODD}])
    for source in (Source.files(path), Source.captured(captured)):
        found = described(source, spec, None)
        assert {name: column.categories for name, column in found.features.items()} == {n: {n: 1} for n in ODD}
        unknown = described(source, spec, Edges(features={n: Cut(kind="category", categories=("'",)) for n in ODD}))
        assert all(unknown.features[name].new == (name,) for name in ODD)


@pytest.mark.parametrize(
    ("task", "answer", "kind"),
    [
        (Task.BINARY, {"prediction": 1, "score": 0.75}, "number"),
        (Task.REGRESSION, {"prediction": 0.75}, "number"),
        (Task.MULTICLASS, {"prediction": "a", "scores": {"a": 0.75, "b": 0.25}}, "category"),
    ],
)
def test_predictions_are_described_by_what_the_task_predicts(
    task: Task, answer: Row, kind: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "f.jsonl", [record("event", [ROWS[0]], [answer])])
    prediction = described(Source.captured(path), spec_of(task), None).prediction
    assert prediction is not None
    assert (prediction.kind, prediction.rows, prediction.missing) == (kind, 1, 0)
    assert prediction.categories == {"a": 1} if kind == "category" else prediction.max == 0.75


def test_rows_beyond_the_reference_are_outliers(tmp_path: Path) -> None:
    reference = Source.files(csv_file(tmp_path / "r.csv", ROWS, [*SPEC.features]))
    cut = edges(reference, SPEC, resources=SMALL)
    assert described(reference, cut=None).outliers == 0
    inside = {"x": 0.0, "size": 2, "color": "red"}
    rows: list[Row] = [
        inside,
        dict.fromkeys(inside, None),
        inside | {"x": -1.5},
        inside | {"x": -1.6},
        inside | {"x": 7.5, "size": 9},
        inside | {"size": 0},
        inside | {"color": "violet"},
        {"x": None, "size": None, "color": "violet"},
    ]
    found = described(Source.captured(captured_file(tmp_path / "f.jsonl", rows)), cut=cut)
    assert (found.rows, found.outliers) == (8, 5)


def test_where_not_all_categories_have_a_name_an_unknown_one_is_no_outlier(tmp_path: Path) -> None:
    spec = spec_of(features={"color": {"type": "category"}})
    path = csv_file(tmp_path / "r.csv", [{"color": f"c{n}"} for n in range(101)], ["color"])
    cut = edges(Source.files(path), spec, resources=SMALL)
    new = csv_file(tmp_path / "f.csv", [{"color": "violet"}], ["color"])
    assert described(Source.files(new), spec, cut).outliers == 0


def test_confidence_is_the_probability_of_what_is_predicted(tmp_path: Path) -> None:
    scores = [0.02, 0.5, 0.75, 1.0]
    lines = [record(f"e{n}", [ROWS[0]], [{"prediction": 1, "score": score}]) for n, score in enumerate(scores)]
    of_binary = described(Source.captured(write(tmp_path / "b.jsonl", lines)))
    assert of_binary.confidence is not None
    assert of_binary.confidence.sum == pytest.approx(0.98 + 0.5 + 0.75 + 1.0)
    assert of_binary.confidence.counts[9] == of_binary.confidence.counts[14] == 1
    answers = [{"prediction": "a", "scores": {"a": 0.5, "b": 0.3, "c": 0.2}}, {"prediction": "b", "scores": {"b": 1.0}}]
    lines = [record(f"e{n}", [ROWS[0]], [answer]) for n, answer in enumerate(answers)]
    of_many = described(Source.captured(write(tmp_path / "m.jsonl", lines)), spec_of(Task.MULTICLASS))
    assert of_many.confidence is not None
    assert of_many.confidence.mean == pytest.approx(0.75)
    rows = [{**ROWS[0], "prediction": "a", "confidence": 0.5}, {**ROWS[1], "prediction": "b", "confidence": 1.0}]
    of_file = Source.files(csv_file(tmp_path / "m.csv", rows, [*rows[0]]))
    assert described(of_file, spec_of(Task.MULTICLASS)).confidence == of_many.confidence
    path = write(tmp_path / "r.jsonl", [record("e", [ROWS[0]], [{"prediction": 2.5}])])
    assert described(Source.captured(path), spec_of(Task.REGRESSION)).confidence is None


def test_values_of_segments_are_counted_with_the_rows_that_are_selected(tmp_path: Path) -> None:
    spec = spec_of(segments=["color", "size"])
    rows = [(row, score) for row, score in zip(ROWS, (0.9, 0.1, 0.8, 0.5, 0.4), strict=True)]
    lines = [record(f"e{n}", [row], [{"prediction": 1, "score": score}]) for n, (row, score) in enumerate(rows)]
    found = described(Source.captured(write(tmp_path / "f.jsonl", lines)), spec, None)
    counted = {name: {v: (c.rows, c.selected) for v, c in of.items()} for name, of in found.segments.items()}
    assert counted == {
        "color": {"red": (2, 1), "blue": (1, 0), "green": (1, 1)},
        "size": {"1.0": (2, 1), "2.0": (1, 1), "4.0": (1, 0)},
    }
    of_files = described(Source.files(csv_file(tmp_path / "f.csv", ROWS, [*SPEC.features])), spec, found.edges)
    assert {value: (c.rows, c.selected) for value, c in of_files.segments["color"].items()} == {
        "red": (2, None),
        "blue": (1, None),
        "green": (1, None),
    }


@pytest.mark.parametrize("values", [0, 1, 2, 3, 10])
def test_few_different_values_are_counted_exactly(values: int) -> None:
    assert column([float(n % values) for n in range(100)] if values else [None], "number").distinct == values


@pytest.mark.parametrize("values", [100, 3_000, 100_000])
@pytest.mark.parametrize("kind", ["number", "category"])
def test_many_different_values_are_counted_within_the_bound(values: int, kind: Kind) -> None:
    with connect(SMALL) as db:
        db.execute("CREATE TABLE given AS SELECT (range % ?) * 3 AS x FROM range(2 * ?)", [values, values])
        queries = ("FROM given", "FROM given WHERE x % 2 = 0", "FROM given WHERE x % 2 = 1")
        whole, even, odd = (column_of(db, query, kind, Cut(kind=kind)) for query in queries)
    assert whole.distinct == pytest.approx(values, rel=BOUND)
    assert even.merge(odd).merge(even).sketch == whole.sketch


def test_records_that_cannot_be_read_are_counted_apart(tmp_path: Path) -> None:
    path = captured_file(tmp_path / "f.jsonl", ROWS)
    path.write_text(path.read_text() + "cut of\n" + record("event", "1,2\n", "1,0.5\n") + "\n")
    found = described(Source.captured(path))
    assert (found.rows, found.malformed) == (5, 2)
    assert found.merge(found).malformed == 4


# --- edges


def numbers(folder: Path, values: Sequence[float | None]) -> Source:
    return Source.files(csv_file(folder / "f.csv", [{"x": value} for value in values], ["x"]))


NUMBER = spec_of(features={"x": {"type": "number"}})


def test_many_values_are_cut_into_tenths(tmp_path: Path) -> None:
    source = numbers(tmp_path, [float(n) for n in range(1000)])
    found = described(source, NUMBER, None).features["x"]
    assert len(found.edges) == 9
    assert all(abs(count - 100) <= 1 for count in found.counts)
    assert described(source, NUMBER, None).features["x"] == found


def test_few_values_have_a_bin_each_and_one_on_both_sides(tmp_path: Path) -> None:
    found = described(numbers(tmp_path, [0.0, 1.0, None, 1.0, 5.0]), NUMBER, None).features["x"]
    assert (found.edges, found.counts, found.missing) == ((-1.0, 0.0, 1.0, 5.0), (0, 1, 2, 1, 0), 1)


def test_where_all_values_are_missing_there_is_one_bin(tmp_path: Path) -> None:
    found = described(numbers(tmp_path, [None, math.nan]), NUMBER, None).features["x"]
    assert (found.edges, found.missing, found.bins()) == ((), 2, {"any": 0})


def test_one_value_repeated_leaves_room_for_others(tmp_path: Path) -> None:
    cut = edges(numbers(tmp_path, [3.0] * 9), NUMBER, resources=SMALL)
    found = described(numbers(tmp_path, [2.0, 3.0, 4.0, -9.0]), NUMBER, cut).features["x"]
    assert sum(1 for count in found.counts if count) == 3


def test_the_hundred_most_frequent_categories_are_named(tmp_path: Path) -> None:
    spec = spec_of(features={"color": {"type": "category"}})
    rows = [{"color": f"c{n:03}"} for n in range(130) for _ in range(2 if n >= 20 else 1)]
    found = described(Source.files(csv_file(tmp_path / "f.csv", rows, ["color"])), spec, None).features["color"]
    assert set(found.categories) == {f"c{n:03}" for n in range(20, 120)}
    assert (found.other, found.new[0], len(found.new)) == (40, "c000", 20)


# --- parts and wholes

VALUES = st.none() | st.sampled_from([-1.0, 0.0, 2.5, math.inf, math.nan]) | st.integers(-9, 9).map(lambda n: n / 4)
TABLE = st.lists(
    st.fixed_dictionaries(
        {
            "x": VALUES,
            "size": st.none() | st.integers(0, 5),
            "color": st.sampled_from([None, "red", "green", "it's", ""]),
        }
    ),
    max_size=8,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(TABLE, min_size=2, max_size=3))
def test_profiles_of_parts_merge_to_the_profile_of_the_whole(parts: list[list[Row]], tmp_path: Path) -> None:
    files = [csv_file(tmp_path / f"{n}.csv", rows, [*SPEC.features]) for n, rows in enumerate(parts)]
    first, *others = (described(Source.files(file)) for file in files)
    merged = first
    for other in others:
        merged = merged.merge(other)
    assert merged == described(Source.files(*files))


COUNT = st.integers(0, 10**6)
EXACT = st.integers(-(2**20), 2**20).map(float)  # sums of these do not round


SKETCH = st.integers(0, 2**3072 - 1).map(lambda bits: Sketch(bits=f"{bits:x}"))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    counts = draw(st.lists(COUNT, min_size=3, max_size=3))
    missing, other = draw(COUNT), draw(COUNT)
    low, high = sorted((draw(EXACT), draw(EXACT)))
    some = sum(counts) > 0
    number = ColumnProfile(
        kind="number",
        rows=sum(counts) + missing,
        missing=missing,
        min=low if some else None,
        max=high if some else None,
        sum=draw(EXACT) if some else 0.0,
        edges=(0.0, 1.0),
        counts=tuple(counts),
        sketch=draw(SKETCH),
    )
    names = draw(st.sets(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), max_size=20)) if other else set()
    category = ColumnProfile(
        kind="category",
        rows=sum(counts[:2]) + other,
        missing=0,
        categories=dict(zip(("red", "blue"), counts, strict=False)),
        other=other,
        new=tuple(sorted(names)),
        sketch=draw(SKETCH),
    )
    return Profile(
        model="example",
        rows=draw(COUNT),
        malformed=draw(COUNT),
        features={"x": number, "color": category},
        prediction=number,
        confidence=number,
        outliers=draw(st.none() | COUNT),
        segments={"color": {name: SegmentCount(rows=draw(COUNT), selected=draw(COUNT)) for name in ("red", "blue")}},
    )


@given(profiles(), profiles(), profiles())
@settings(max_examples=40, deadline=None)
def test_merging_is_associative_and_commutative(a: Profile, b: Profile, c: Profile) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(profiles())
@settings(max_examples=10, deadline=None)
def test_a_profile_is_the_same_after_it_was_stored(found: Profile) -> None:
    assert Profile.model_validate_json(found.model_dump_json()) == found


def test_profiles_that_were_cut_elsewhere_do_not_merge(tmp_path: Path) -> None:
    source = Source.captured(captured_file(tmp_path / "f.jsonl", ROWS))
    whole = described(source, cut=None)
    for other in (
        described(source),
        whole.model_copy(update={"prediction": None}),
        whole.model_copy(update={"model": "another"}),
        whole.model_copy(update={"features": {}}),
        whole.model_copy(update={"segments": {"color": {}}}),
    ):
        for one, two in ((whole, other), (other, whole)):
            with pytest.raises(ValueError, match=r"merge"):
                one.merge(two)
