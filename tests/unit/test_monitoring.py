"""What monitors say of a window: a value and its verdict, or what is lacking."""

import random
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noria import drift
from noria.aws.runs import measured
from noria.explain import Weight, compare
from noria.hours import Hours
from noria.labels import Coverage
from noria.ledger import Entry, Fact, Kind
from noria.monitoring import REACH, TREND, Evidence, Run, Window, few, findings, previous_report, silence
from noria.monitors import Finding, Monitor, Unknown, monitors
from noria.profile import ColumnProfile, Profile, SegmentCount
from noria.spec import ModelSpec

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LACKING = Unknown(reason="there is none")


def described(**changes: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": "m",
            "task": "binary_classification",
            "target": "y",
            "time": "at",
            "features": {"x": {"type": "number"}, "kind": {"type": "category"}},
            "segments": ["kind"],
            "owner": {"team": "t"},
        }
        | changes
    )


SPEC = described(monitor={"bias": {"kind": {"disparate_impact": 0.8}}})


def numbers(counts: tuple[int, int], *, total: float = 0.0) -> ColumnProfile:
    return ColumnProfile(kind="number", rows=sum(counts), missing=0, edges=(0.5,), counts=counts, sum=total)


def window(counts: tuple[int, int] = (500, 500), **changes: Any) -> Profile:
    rows = sum(counts)
    kinds = ColumnProfile(kind="category", rows=rows, missing=0, categories={"a": rows // 2, "b": rows - rows // 2})
    told: dict[str, Any] = {
        "model": "m",
        "rows": rows,
        "features": {"x": numbers(counts), "kind": kinds},
        "prediction": numbers(counts),
        "confidence": numbers(counts, total=0.8 * rows),
        "outliers": 0,
        "segments": {},
    }
    return Profile(**told | changes)


def evidence(found: Profile, spec: ModelSpec = SPEC, baseline: Profile | None = None, **changes: Any) -> Evidence:
    before = baseline or window()
    told: dict[str, Any] = {
        "spec": spec,
        "report": drift.compare(before, found, spec),
        "baseline": before,
        "window": found,
        "few": few(spec, found),
        "live": LACKING,
        "attribution": LACKING,
        "silent": timedelta(),
        "quality": LACKING,
        "labels": LACKING,
    }
    return Evidence(**told | changes)


def said(found: Evidence) -> dict[str, Finding]:
    return {finding.monitor: finding for finding in findings(found)}


def run(found: Evidence, *, previous: Run | None = None, end: datetime = NOON) -> Run:
    asked = Window(start=end - HOUR, end=end)
    return Run.of(found, package="p", window=asked, at=NOON, own_rows=found.window.rows, previous=previous)


# --- verdicts


def test_every_monitor_says_something_of_every_window_in_the_order_of_the_list() -> None:
    for found in (window(), window((1, 1))):
        assert [f.monitor for f in findings(evidence(found))] == [monitor.name for monitor in monitors(SPEC)]


def test_the_verdict_is_that_of_the_value_and_the_limit() -> None:
    of = {monitor.name: monitor for monitor in monitors(SPEC)}
    for counts in ((500, 500), (900, 100), (1000, 0)):
        for finding in findings(evidence(window(counts))):
            if finding.value is None:
                assert finding.state == "not enough data"
            else:
                assert (finding.state == "breach") == of[finding.monitor].breached(finding.value)


def test_a_feature_that_has_drifted_is_counted_and_its_comparison_is_the_reason() -> None:
    found = evidence(window((900, 100)))
    finding = said(found)["drift"]
    assert (finding.state, finding.value, finding.reason) == ("breach", 1, found.report.summary)
    assert said(found)["prediction-drift"].state == "breach"
    assert said(evidence(window()))["drift"].state == "ok"


@pytest.mark.parametrize(
    ("changes", "rows", "reason"),
    [
        ({}, 499, "499 rows are fewer than 500 (monitor.min_rows)"),
        (
            {"serve": {"capture": 10}},
            40,
            "40 rows of 10 % of the requests, which serve.capture keeps are fewer than 500 (monitor.min_rows)",
        ),
        ({"serve": {"capture": 0}}, 0, "nothing is kept of the requests: serve.capture is 0"),
    ],
)
def test_too_few_rows_are_no_value_and_say_why(changes: dict[str, Any], rows: int, reason: str) -> None:
    spec = described(**changes)
    small = said(evidence(window((rows, 0)), spec))
    lacking = {"drift", "prediction-drift", "outliers", "confidence"}
    assert {(small[name].state, small[name].value, small[name].reason) for name in lacking} == {
        ("not enough data", None, reason)
    }


def test_what_failed_is_counted_and_what_lacked_is_not() -> None:
    broken = Unknown(reason="the query failed", failed=True)
    found = said(evidence(window(), live=broken, labels=broken))
    assert (found["monitor-failures"].state, found["monitor-failures"].value) == ("breach", 1)
    assert found["monitor-failures"].reason == found["invalid"].reason == "the query failed"
    assert found["drift"].state == "ok"
    assert said(evidence(window()))["monitor-failures"].value == 0


def test_confidence_is_compared_by_its_mean() -> None:
    less = window(confidence=numbers((500, 500), total=650))
    assert said(evidence(less))["confidence"].value == pytest.approx(0.15)
    assert said(evidence(less))["confidence"].state == "breach"
    assert said(evidence(window(confidence=None)))["confidence"].state == "not enough data"


def test_disparate_impact_speaks_when_it_is_surely_beyond_its_limit() -> None:
    def of(selected: int) -> Finding:
        counts = {"a": SegmentCount(rows=500, selected=250), "b": SegmentCount(rows=500, selected=selected)}
        return said(evidence(window(segments={"kind": counts})))["bias-disparate-impact-kind"]

    assert (of(250).state, of(190).state, of(100).state) == ("ok", "ok", "breach")
    assert said(evidence(window()))["bias-disparate-impact-kind"].state == "not enough data"


def test_outliers_that_chance_explains_are_none() -> None:
    """Of rows drawn as those of the baseline were, as many are beyond its smallest and largest as is taken off."""
    chance, rows, windows = random.Random(1), 40, 400  # noqa: S311
    beyond = 0
    for _ in range(windows):
        before = sorted(chance.random() for _ in range(rows))
        beyond += sum(not before[0] <= chance.random() <= before[-1] for _ in range(rows))
    baseline = window((rows // 2, rows // 2)).model_copy(update={"features": {"x": numbers((rows // 2, rows // 2))}})
    spec = described(features={"x": {"type": "number"}}, segments=[], monitor={"min_rows": 1})

    def measured(outliers: int, of: int) -> float:
        found = baseline.model_copy(update={"rows": of, "outliers": outliers})
        value = said(evidence(found, spec, baseline))["outliers"].value
        assert value is not None
        return value

    assert measured(0, rows) == 0
    taken_off = 0.5 - measured(rows // 2, rows)
    assert taken_off == pytest.approx(beyond / (rows * windows), rel=0.1)


def test_predictions_that_seem_to_have_drifted_by_chance_have_not() -> None:
    spec = described(monitor={"min_rows": 1, "psi": 0.01})
    few_rows = evidence(window((12, 8)), spec)
    prediction = few_rows.report.prediction
    assert prediction is not None
    assert (prediction.psi > 0.01, prediction.drifted) == (True, False)
    finding = said(few_rows)["prediction-drift"]
    assert (finding.state, finding.value) == ("ok", 0)
    assert said(evidence(window((600, 400)), spec))["prediction-drift"].state == "breach"


# --- windows


def monitored(window: Window, rows: int, *, number: int = 1, malformed: int = 0) -> Entry:
    details: dict[str, Any] = {"report": window.report("m", "report.json"), "own_rows": rows, "rows": rows}
    fact = Fact(
        model="m",
        kind=Kind.MONITORED,
        subject=window.name,
        at=window.end,
        summary="so",
        details=details | {"malformed": malformed},
    )
    return Entry.after(fact, number=number, previous="0" * 64)


def hour(number: int) -> Window:
    """The hour that ends so many hours after noon."""
    return Window(start=NOON + (number - 1) * HOUR, end=NOON + number * HOUR)


def test_a_window_begins_earlier_until_it_has_the_rows_and_no_earlier() -> None:
    told = [monitored(hour(-n), 100) for n in (3, 1, 2)]
    assert hour(0).widened(told, rows=100, wanted=300, since=None) == Window(start=hour(-2).start, end=NOON)
    assert hour(0).widened(told, rows=300, wanted=300, since=None) == hour(0)


def test_a_window_stays_as_it_is_where_earlier_ones_do_not_help() -> None:
    told = [monitored(hour(-n), 100) for n in (1, 2, 3)]
    assert hour(0).widened(told, rows=100, wanted=500, since=None) == hour(0)
    assert hour(0).widened(told, rows=100, wanted=300, since=hour(-1).start) == hour(0)
    assert hour(0).widened([], rows=0, wanted=1, since=None) == hour(0)


@pytest.mark.parametrize("seed", range(20))
def test_a_widened_window_reaches_back_a_day_at_most_and_not_before_its_version(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    told = [monitored(hour(-n), chance.randrange(30)) for n in range(1, 40)]
    told += [monitored(replace(hour(-n), start=hour(-n - 3).start), 1000) for n in (4, 9)]  # a person asked for those
    live = NOON - chance.randrange(2, 40) * HOUR
    found = hour(0).widened(told, rows=5, wanted=100, since=live)
    assert found.end == NOON
    assert found == hour(0) or max(live, NOON - REACH) <= found.start < hour(0).start


def test_the_report_before_is_the_one_of_the_window_that_ended_last_before_it() -> None:
    told = [monitored(hour(n), 1) for n in (2, -1, -3)]
    assert previous_report(told, hour(0)) == hour(-1).report("m", "report.json")
    assert previous_report([], hour(0)) is None
    assert (hour(0).overtaken(told), hour(2).overtaken(told)) == (True, False)


def test_silence_lasts_since_the_last_window_with_a_request() -> None:
    told = [monitored(hour(-5), 7), monitored(hour(-4), 0, malformed=1), *(monitored(hour(-n), 0) for n in (3, 2, 1))]
    nothing = window((0, 0))
    assert silence(SPEC, told, hour(0), nothing) == 4 * HOUR
    assert silence(SPEC, told, hour(0), window((1, 0))) == timedelta()
    assert silence(SPEC, told, hour(0), nothing.model_copy(update={"malformed": 1})) == timedelta()
    assert silence(SPEC, told[2:], hour(0), nothing) == Unknown(reason="no request has ever been seen")
    for hours, state in ((24, "ok"), (25, "breach")):
        assert said(evidence(window(), silent=hours * HOUR))["silence"].state == state
    some = Hours.model_validate({"days": "MON-SUN", "from": "09:00", "to": "11:00"})  # the others nobody could ask in
    open_then = SPEC.model_copy(update={"serve": SPEC.serve.model_copy(update={"hours": some})})
    assert silence(open_then, told, hour(0), nothing) == 2 * HOUR


# --- the run


def test_a_run_says_what_breached_what_lacked_and_what_was_measured() -> None:
    found = run(evidence(window((900, 100))))
    assert found.breached[:2] == ("drift", "prediction-drift")
    assert {"quality", "attribution"} <= set(found.not_enough)
    assert not {*found.values} & {*found.not_enough}
    assert Run.model_validate_json(found.model_dump_json()) == found


def test_a_trend_is_of_the_windows_before_and_ends() -> None:
    last: Run | None = None
    for number in range(TREND + 3):
        last = run(evidence(window()), previous=last, end=NOON + number * HOUR)
    assert last is not None
    assert len(last.trend) == TREND
    assert last.trend[-1].end == last.end - HOUR
    assert last.trend[0].values == last.point.values


# --- the list


@pytest.mark.parametrize("task", ["binary_classification", "multiclass_classification", "regression"])
def test_names_of_monitors_are_their_own_and_metrics_that_are_shared_are_of_one_number(task: str) -> None:
    business = {"sum": {"sql": "SELECT sum(x) FROM predictions", "min": 0, "max": 1}}
    bias = {"kind": {"disparate_impact": 0.8, "equal_opportunity": 0.1, "equalized_odds": 0.1}}
    watch = {"labels": {"coverage": 0.5}, "business": business}
    spec = described(task=task, monitor=watch | ({"bias": bias} if task.startswith("binary") else {}))
    listed = monitors(spec)
    assert len({monitor.name for monitor in listed}) == len(listed)
    shared: dict[tuple[str, str | None], list[Monitor]] = {}
    for monitor in listed:
        shared.setdefault((monitor.metric, monitor.segment), []).append(monitor)
    assert {key for key, of in shared.items() if len(of) > 1} == {("Business-sum", None)}


def test_a_segment_of_any_name_gives_an_alarm_a_plain_name() -> None:
    segments = ["home_city", "Größe (cm)", "年龄", "性别"]
    spec = described(
        features={name: {"type": "number"} for name in segments},
        segments=segments,
        monitor={"bias": {name: {"disparate_impact": 0.8} for name in segments}},
    )
    names = [monitor.name for monitor in monitors(spec) if monitor.segment]
    assert names[0] == "bias-disparate-impact-home-city"
    assert len(set(names)) == len(segments)
    assert all(re.fullmatch(r"bias-disparate-impact-[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


def test_coverage_that_a_monitor_does_not_judge_is_no_value_of_its_metric() -> None:
    few_old = Coverage(since=NOON - HOUR, until=NOON, predictions=5, labelled=1)
    for watch, published in (({"coverage": 0.8}, []), ({}, [0.2])):
        found = run(evidence(window(), described(monitor={"labels": watch}), labels=few_old))
        assert ("label-coverage" in found.not_enough) == bool(watch)
        assert [m.value for m in measured(found) if m.name == "LabelCoverage"] == published


def test_what_predictions_rest_on_is_known_for_a_day_and_of_its_package() -> None:
    weight = Weight(value=1, standard_error=0, share=1, share_error=0)
    told = compare({"x": weight}, {"x": weight}, rows=100)
    found = run(evidence(window(), attribution=told, explained=NOON))
    assert found.explains("p", until=NOON + timedelta(hours=23))
    assert not found.explains("p", until=NOON + timedelta(hours=24))
    assert not found.explains("another", until=NOON + HOUR)
    assert not run(evidence(window(), explained=NOON)).explains("p", until=NOON + HOUR)
