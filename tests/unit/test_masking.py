"""No value of a sensitive feature is left where people look; how much changed is."""

import json
from datetime import timedelta

import pytest

from noria import drift, masking
from noria.monitoring import Evidence, Run, Window
from noria.monitors import Unknown
from noria.profile import column
from noria.report import render
from noria.spec import ModelSpec
from noria.violations import MASK
from tests.unit import report_run

CATEGORIES = ("crimson", "emerald", "sapphire")
SENSITIVE = ("x", "size", "color")


def secret() -> ModelSpec:
    of = report_run.spec()
    features = {name: f.model_dump() | {"sensitive": name in SENSITIVE} for name, f in of.features.items()}
    return ModelSpec.model_validate(of.model_dump() | {"features": features})


def test_masked_profiles_hold_no_value_and_compare_as_before() -> None:
    before, after = report_run.profiles(secret(), CATEGORIES)

    masked, window = masking.profiles(before, after, SENSITIVE)

    for name in SENSITIVE:
        told, hidden = before.features[name], masked.features[name]
        assert drift.psi(hidden, window.features[name]) == pytest.approx(drift.psi(told, after.features[name]))
        assert (hidden.rows, hidden.missing, hidden.counts) == (told.rows, told.missing, told.counts)
        assert (told.sketch is None, hidden.sketch) == (False, None)
        assert sorted(hidden.categories.values()) == sorted(told.categories.values())
        assert (hidden.min, hidden.max, hidden.mean) == (None, None, 0.0 if hidden.kind == "number" else None)
    text = json.dumps([masked.model_dump(mode="json"), window.model_dump(mode="json")])
    for value in (*CATEGORIES, "brand-new", *map(str, before.features["x"].edges), str(before.features["x"].max)):
        assert value not in text
    assert masked.prediction == before.prediction


def test_what_is_not_sensitive_stays_as_it_is() -> None:
    before, after = report_run.profiles(report_run.spec(), CATEGORIES)
    assert masking.profiles(before, after, ()) == (before, after)
    assert masking.profiles(before, after, ("size",))[0].features["x"] == before.features["x"]
    found = report_run.quality(report_run.spec(), CATEGORIES)
    assert masking.quality(found, ("x",)) == found


def test_quality_by_segment_keeps_its_numbers_and_loses_its_names() -> None:
    found = report_run.quality(secret(), CATEGORIES)

    masked = masking.quality(found, SENSITIVE)

    text = masked.model_dump_json()
    assert not [value for value in (*CATEGORIES, "rare") if value in text]
    assert list(masked.segments["color"].values()) == list(found.segments["color"].values())
    assert set(masked.segments["color"]) == set(masked.fairness["color"].values) == {"value 1", "value 2", "value 3"}
    assert masked.fairness["color"].left_out == {"value 4": 12}
    assert masked.fairness["color"].disparate_impact == found.fairness["color"].disparate_impact


def test_a_comparison_says_how_many_categories_came_and_not_which() -> None:
    before, after = report_run.profiles(secret(), CATEGORIES)
    named = column(["crimson"] * 900 + ["brand-new"] * 1100, "category", before.features["color"].cut)
    after = after.model_copy(
        update={"features": after.features | {"color": named.model_copy(update={"new": ("brand-new",)})}}
    )

    told = drift.compare(before, after, report_run.spec())
    masked = drift.compare(before, after, secret())

    assert told.features["color"].new_categories == ("brand-new",)
    assert masked.features["color"].new_categories == (MASK,)
    assert len(masked.features["color"].vanished_categories) == len(told.features["color"].vanished_categories) == 2
    assert "brand-new" in told.summary
    assert not [value for value in (*CATEGORIES, "brand-new") if value in masked.model_dump_json()]


def test_a_run_and_its_page_hold_no_value_of_a_sensitive_feature() -> None:
    of = secret()
    before, after = report_run.profiles(of, CATEGORIES)
    told = report_run.run(of, CATEGORIES)
    nothing = Unknown(reason="nothing")
    evidence = Evidence(
        spec=of,
        report=drift.compare(before, after, of),
        baseline=before,
        window=after,
        few=None,
        live=nothing,
        attribution=told.attribution or nothing,
        silent=timedelta(),
        quality=told.quality or nothing,
        labels=told.labels or nothing,
        business={"late-revenue": 12.5},
    )

    run = Run.of(
        evidence,
        package=told.package,
        window=Window(start=told.start, end=told.end),
        at=told.at,
        own_rows=told.own_rows,
    )

    values = (*CATEGORIES, "brand-new", "rare", str(before.features["x"].max), str(before.features["x"].edges[0]))
    for text in (run.model_dump_json(), render(run)):
        assert not [value for value in values if value in text]
    assert run.sensitive == SENSITIVE
