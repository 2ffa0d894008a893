"""The comparison of two variants says what is true of them, and however often one looks it rarely says what is not."""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from noria.experiment import (
    ALPHA,
    MARGIN,
    REQUESTS,
    TIGHTEST,
    Difference,
    Estimate,
    Experiment,
    Side,
    Traffic,
    Verdict,
    compare,
    judge,
    radius,
    share,
)
from noria.labels import LabelsFile
from noria.profile import Source
from noria.spec import Metric, ModelSpec, Task
from tests.unit.engine_data import NOW, SMALL, record, spec_of, write

Floats = NDArray[np.float64]
RUNS = 1000
STEPS = 4000


# --- the interval


@pytest.mark.parametrize("t", [1, 100, TIGHTEST, 100_000])
def test_the_radius_is_that_of_the_asymptotic_confidence_sequence(t: int) -> None:
    """Theorem 2.2 of Waudby-Smith et al. (2024), of t observations of variance 1; rho as it is best at `TIGHTEST`."""

    def paper(rho: float) -> float:
        return math.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / 0.05))

    odds = -2 * math.log(0.05)
    rho = math.sqrt((odds + math.log(odds + 1)) / TIGHTEST)
    assert radius(1 / t, t, alpha=0.05) == pytest.approx(paper(rho))
    if t == TIGHTEST:
        assert all(paper(rho) <= 1.001 * paper(other * rho) for other in (0.5, 0.9, 1.1, 2))


def test_an_interval_narrows_with_requests_and_widens_with_certainty() -> None:
    widths = [radius(1 / n, n, alpha=0.05) for n in (1, 10, 100, 1000, 10_000, 10**8)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1e-3
    assert radius(0.01, 100, alpha=0.01) > radius(0.01, 100, alpha=0.05)
    assert radius(0.01, 100, alpha=0.05) > 1.96 * 0.1  # wider than what holds at one look only
    assert radius(0.0, 100, alpha=0.05) == 0


def running(x: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of the mean of each run's observations so far, (runs, steps)."""
    n = np.arange(1, x.shape[1] + 1)
    mean = np.cumsum(x, axis=1) / n
    squares = np.cumsum(x**2, axis=1) / n
    return mean, np.maximum(squares - mean**2, 0) / np.maximum(n - 1, 1)


def brier(chance: np.random.Generator, blur: float, shape: tuple[int, int]) -> Floats:
    """Losses of a model that knows each probability up to `blur`: skewed, and far from normal."""
    p = chance.beta(1, 3, shape)
    told = np.clip(p + blur * chance.standard_normal(shape), 0, 1)
    losses: Floats = (told - (chance.random(shape) < p)) ** 2
    return losses


def ever_outside(value: Floats, variance: Floats, worth: Floats) -> float:
    """The share of runs in which some look has a truth of zero outside of the interval; all have a column per look."""
    half = np.array([radius(1.0, float(each), alpha=ALPHA) for each in worth])
    return float((np.abs(value) > half * np.sqrt(variance)).any(axis=1).mean())


def test_looking_all_the_time_the_truth_is_rarely_outside_of_paired_differences() -> None:
    chance = np.random.default_rng(1)
    losses = brier(chance, 0.0, (RUNS, STEPS))
    rival = losses + chance.exponential(0.1, losses.shape) - 0.1
    looks = np.arange(REQUESTS, STEPS, 10)
    mean, variance = (each[:, looks] for each in running(rival - losses))
    assert ever_outside(mean, variance, (looks + 1).astype(np.float64)) <= ALPHA
    ordinary = (np.abs(mean) > 1.96 * np.sqrt(variance)).any(axis=1).mean()
    assert ordinary > 4 * ALPHA  # what looking does to an interval that is meant for one look


def test_looking_all_the_time_the_truth_is_rarely_outside_of_two_samples() -> None:
    """Whatever the challenger's share of the traffic, and though it grows on the way."""
    chance = np.random.default_rng(2)
    champion, rival = (running(brier(chance, 0.0, (RUNS, STEPS))) for _ in range(2))
    for shares in ((0.5,), (0.05,), (0.05, 0.25, 0.5)):
        theirs = np.maximum(np.cumsum(np.repeat(shares, STEPS // len(shares))).astype(int), 1)
        looks = np.arange(np.searchsorted(theirs, 100), len(theirs), 10)
        there = theirs[looks]
        here = np.maximum(looks + 1 - there, 1)
        value = rival[0][:, there - 1] - champion[0][:, here - 1]
        variance = rival[1][:, there - 1] + champion[1][:, here - 1]
        assert ever_outside(value, variance, 1 / (1 / there + 1 / here)) <= ALPHA, shares


# --- the stop rule


def verdicts(champion: Floats, rival: Floats, *, paired: bool) -> list[Verdict]:
    """What each run stops with, looking every hundred requests; wait where it never stops."""
    ours, theirs, pairs = running(champion), running(rival), running(rival - champion)
    found, spec = [], spec_of()
    for run in range(len(champion)):
        verdict = Verdict.WAIT
        for n in range(500, champion.shape[1], 100):
            sides = [
                Estimate(value=mean[run, n], variance=variance[run, n], rows=n, requests=n, worth=n)
                for mean, variance in (ours, theirs, pairs)
            ]
            difference = sides[2] if paired else sides[1] - sides[0]
            loss = Difference.of(sides[0], sides[1], difference, margin=MARGIN * sides[0].value)
            verdict, _ = judge(loss, None, spec=spec)
            if verdict is not Verdict.WAIT:
                break
        found.append(verdict)
    return found


def test_a_rival_that_is_as_good_is_rarely_abandoned_and_when_paired_soon_promoted() -> None:
    chance = np.random.default_rng(3)
    losses = brier(chance, 0.0, (200, 6000))
    noise = chance.normal(0, 0.05, losses.shape)
    assert verdicts(losses, losses + noise, paired=True).count(Verdict.PROMOTE) > 190
    stopped = verdicts(losses, brier(chance, 0.0, losses.shape), paired=False)
    assert stopped.count(Verdict.ABANDON) <= 200 * ALPHA


def test_a_rival_that_is_worse_by_the_margin_is_rarely_promoted() -> None:
    chance = np.random.default_rng(4)
    losses = brier(chance, 0.0, (200, 6000))
    worse = losses + MARGIN * losses.mean()
    noise = chance.normal(0, 0.05, losses.shape)
    assert verdicts(losses, worse + noise, paired=True).count(Verdict.PROMOTE) <= 200 * ALPHA
    other = brier(chance, 0.0, losses.shape) + MARGIN * losses.mean()
    assert verdicts(losses, other, paired=False).count(Verdict.PROMOTE) <= 200 * ALPHA


def test_a_rival_that_is_much_worse_or_much_better_is_told_soon() -> None:
    chance = np.random.default_rng(5)
    good, bad = brier(chance, 0.0, (100, 4000)), brier(chance, 0.4, (100, 4000))
    assert verdicts(good, bad, paired=False).count(Verdict.ABANDON) == 100
    assert verdicts(bad, good, paired=False).count(Verdict.PROMOTE) == 100


def difference(low: float, high: float, *, margin: float = 0.01, rows: int = 1000, requests: int = 1000) -> Difference:
    middle = (low + high) / 2
    return Difference(
        champion=0.2,
        rival=0.2 + middle,
        value=middle,
        low=low,
        high=high,
        margin=margin,
        rows=rows,
        requests=requests,
    )


@pytest.mark.parametrize(
    ("loss", "failures", "verdict"),
    [
        (None, None, Verdict.WAIT),
        (difference(-0.02, 0.005), None, Verdict.PROMOTE),
        (difference(0.001, 0.005), None, Verdict.PROMOTE),  # worse, but by less than counts
        (difference(0.001, 0.05), None, Verdict.ABANDON),
        (difference(-0.02, 0.02), None, Verdict.WAIT),
        (difference(-0.02, 0.005, rows=499), None, Verdict.WAIT),
        (difference(-0.02, 0.005, requests=199), None, Verdict.WAIT),
        (difference(-0.02, 0.005), difference(0.001, 0.02), Verdict.ABANDON),
        (None, difference(0.001, 0.02), Verdict.ABANDON),
        (difference(-0.02, 0.005), difference(-0.01, 0.02), Verdict.WAIT),
        (difference(-0.02, 0.005), difference(-0.01, 0.005), Verdict.PROMOTE),
    ],
)
def test_the_stop_rule(loss: Difference | None, failures: Difference | None, verdict: Verdict) -> None:
    found, reason = judge(loss, failures, spec=spec_of())
    assert found is verdict
    assert reason.endswith(".")


def test_no_failure_among_few_requests_is_not_sure_to_be_none() -> None:
    few, many = share(0, 20), share(0, 20_000)
    assert few.value == many.value == 0
    assert few.interval(alpha=ALPHA)[1] > 0.01 > many.interval(alpha=ALPHA)[1]


# --- from files


def requests(
    folder: Path,
    name: str,
    scores: Sequence[Sequence[float]],
    *,
    first: int = 0,
    answer: Mapping[str, Any] = MappingProxyType({}),
) -> Source:
    """Requests r<first>, r<first + 1>, … of one row for each score."""
    lines = [
        record(
            f"{name}{n}",
            [{"x": 1, "size": 1, "color": "red"}] * len(of),
            [{"prediction": int(s >= 0.5), "score": s, **answer} for s in of],
            inference_id=f"r{first + n}",
            time=NOW.isoformat(),
        )
        for n, of in enumerate(scores)
    ]
    return Source.captured(write(folder / f"{name}.jsonl", lines))


def told(folder: Path, labels: Sequence[Sequence[object]], name: str = "labels.csv") -> LabelsFile:
    lines = [f"r{n},{row},{label}" for n, of in enumerate(labels) for row, label in enumerate(of)]
    return LabelsFile(write(folder / name, ["inference_id,row,y", *lines]), name)


def compared(
    champion: Source,
    rival: Source,
    *labels: LabelsFile,
    kind: Literal["challenger", "shadow"] = "challenger",
    spec: ModelSpec | None = None,
    traffic: tuple[Traffic, Traffic] = (Traffic(), Traffic()),
) -> Experiment:
    return compare(
        spec=spec or spec_of(),
        kind=kind,
        champion=Side(package="one", source=champion, traffic=traffic[0]),
        rival=Side(package="two", source=rival, traffic=traffic[1]),
        labels=labels,
        since=NOW - timedelta(hours=1),
        until=NOW,
        resources=SMALL,
    )


def losses(scores: Sequence[Sequence[float]], labels: Sequence[Sequence[int]]) -> list[Floats]:
    return [(np.array(of) - np.array(label)) ** 2 for of, label in zip(scores, labels, strict=True)]


def by_request(values: list[Floats]) -> tuple[float, float]:
    """Mean over rows, and its variance with requests as what is independent."""
    n = np.array([len(of) for of in values])
    totals = np.array([of.sum() for of in values])
    mean = totals.sum() / n.sum()
    return mean, len(n) / (len(n) - 1) * ((totals - mean * n) ** 2).sum() / n.sum() ** 2


def some(chance: np.random.Generator, count: int) -> tuple[list[list[float]], list[list[int]]]:
    sizes = chance.integers(1, 4, count)
    scores = [[round(float(p), 6) for p in chance.random(size)] for size in sizes]
    return scores, [[int(y) for y in chance.random(size) < 0.4] for size in sizes]


def test_challenger_and_champion_are_two_samples_of_requests(tmp_path: Path) -> None:
    chance = np.random.default_rng(6)
    (ours, labels), (theirs, more) = some(chance, 150), some(chance, 120)
    champion, rival = requests(tmp_path, "c", ours), requests(tmp_path, "r", theirs, first=150)
    found = compared(champion, rival, told(tmp_path, labels + more))
    (a, va), (b, vb) = by_request(losses(ours, labels)), by_request(losses(theirs, more))
    assert found.loss is not None
    assert [found.loss.champion, found.loss.rival] == pytest.approx([a, b])
    half = radius(va + vb, 1 / (1 / 150 + 1 / 120), alpha=ALPHA / 2)
    assert [found.loss.low, found.loss.high] == pytest.approx([b - a - half, b - a + half])
    assert (found.loss.rows, found.loss.requests) == (min(map(len, map(np.concatenate, (ours, theirs)))), 120)
    assert found.champion.metrics[Metric.BRIER] == pytest.approx(a)
    assert found.errors is not None
    assert found.errors.champion == pytest.approx(1 - found.champion.metrics[Metric.ACCURACY])
    assert found.verdict is Verdict.WAIT
    assert found.agreement is None


def test_a_shadow_is_compared_request_by_request(tmp_path: Path) -> None:
    chance = np.random.default_rng(7)
    ours, labels = some(chance, 300)
    theirs = [[min(max(s + by, 0), 1) for s in of] for of, by in zip(ours, chance.normal(0, 0.02, 300), strict=True)]
    found = compared(
        requests(tmp_path, "c", ours), requests(tmp_path, "r", theirs), told(tmp_path, labels), kind="shadow"
    )
    pairs = [b - a for a, b in zip(losses(ours, labels), losses(theirs, labels), strict=True)]
    mean, variance = by_request(pairs)
    assert found.loss is not None
    assert found.loss.paired
    assert found.loss.value == pytest.approx(mean)
    half = radius(variance, 300, alpha=ALPHA / 2)
    assert found.loss.high == pytest.approx(mean + half)
    apart = compared(requests(tmp_path, "c", ours), requests(tmp_path, "r", theirs), told(tmp_path, labels))
    assert apart.loss is not None
    assert found.loss.high - found.loss.low < (apart.loss.high - apart.loss.low) / 3
    same = [(a >= 0.5) == (b >= 0.5) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)]
    assert found.agreement == pytest.approx(np.mean(same))


def test_without_labels_predictions_and_failures_tell_what_they_can(tmp_path: Path) -> None:
    ours = [[n / 400] for n in range(400)]
    champion, rival = requests(tmp_path, "c", ours), requests(tmp_path, "r", [[s**3] for (s,) in ours])
    quiet = compared(champion, rival)
    assert quiet.loss is None
    assert quiet.psi is not None
    assert quiet.psi > 0.25
    assert (quiet.verdict, quiet.champion.labelled) == (Verdict.WAIT, 0)
    traffic = (Traffic(requests=2000, failures=1), Traffic(requests=500, failures=60))
    failing = compared(champion, rival, traffic=traffic)
    assert failing.verdict is Verdict.ABANDON
    assert "12.00%" in failing.reason


def test_a_later_label_replaces_an_earlier_one(tmp_path: Path) -> None:
    sure = requests(tmp_path, "c", [[1.0], [0.0]])
    wrong, right = told(tmp_path, [[0], [0]], "first.csv"), told(tmp_path, [[1]], "second.csv")
    assert compared(sure, sure, wrong).champion.metrics[Metric.BRIER] == 0.5
    assert compared(sure, sure, wrong, right).champion.metrics[Metric.BRIER] == 0
    assert compared(sure, sure, right, wrong).champion.metrics[Metric.BRIER] == 0.5


def test_beside_a_champion_that_is_never_wrong_nothing_counts_as_not_worse(tmp_path: Path) -> None:
    labels = [[n % 2] for n in range(600)]
    perfect, nearly = (
        requests(tmp_path, name, [[abs(y - off)] for (y,) in labels]) for name, off in (("c", 0.0), ("r", 0.1))
    )
    found = compared(perfect, nearly, told(tmp_path, labels), kind="shadow")
    assert found.loss is not None
    assert found.loss.margin == 0
    assert found.verdict is Verdict.ABANDON
    assert Experiment.model_validate_json(found.model_dump_json()) == found


def test_labels_that_do_not_agree_on_their_names_are_left_out_aloud(tmp_path: Path) -> None:
    sure = requests(tmp_path, "c", [[1.0], [0.0]])
    words = told(tmp_path, [["no"], ["yes"]])
    found = compared(sure, sure, words)
    assert (found.loss, found.champion.labelled, found.champion.predictions) == (None, 0, 2)
    assert found.unusable is not None
    assert "no, yes" in found.unusable
    assert found.unusable in found.text


def test_a_variant_that_nobody_asked_is_waited_for(tmp_path: Path) -> None:
    found = compared(requests(tmp_path, "c", [[0.4]] * 3), Source.captured(), told(tmp_path, [[1]] * 3))
    assert (found.verdict, found.loss, found.rival.predictions) == (Verdict.WAIT, None, 0)


def test_labels_of_many_classes_are_scored_over_all_of_them(tmp_path: Path) -> None:
    spec = spec_of(Task.MULTICLASS)
    scores = {"a": 0.5, "b": 0.3, "c": 0.2}
    champion = requests(tmp_path, "c", [[0.9]] * 4, answer={"prediction": "a", "scores": scores})
    rival = requests(tmp_path, "r", [[0.9]] * 4, answer={"prediction": "a"})
    found = compared(champion, rival, told(tmp_path, [["a"], ["b"], ["a"], ["d"]]), spec=spec)
    assert found.loss is not None
    right, b, d = 0.25 + 0.09 + 0.04, 0.25 + 0.49 + 0.04, 0.25 + 0.09 + 0.04 + 1
    assert found.loss.champion == pytest.approx((2 * right + b + d) / 4)
    assert found.loss.rival == pytest.approx(1.0)  # half of the labels that it is certain of are wrong
    assert found.errors is not None
    assert found.errors.champion == found.errors.rival == 0.5
    assert found.psi == 0


def test_numbers_are_scored_by_their_squared_error(tmp_path: Path) -> None:
    spec = spec_of(Task.REGRESSION)
    champion, rival = (
        requests(tmp_path, name, [[0.9]] * 3, answer={"prediction": of}) for name, of in (("c", 2.0), ("r", 3.0))
    )
    found = compared(champion, rival, told(tmp_path, [[1.0], [2.0], [3.0]]), spec=spec, kind="shadow")
    assert found.loss is not None
    assert [found.loss.champion, found.loss.rival] == pytest.approx([2 / 3, 5 / 3])
    assert found.errors is None
    assert found.agreement is None
    assert Experiment.model_validate_json(found.model_dump_json()) == found


def test_the_report_says_to_a_person_what_is_known_and_what_to_do(tmp_path: Path) -> None:
    chance = np.random.default_rng(8)
    ours, labels = some(chance, 400)
    better = [[(s + y) / 2 for s, y in zip(of, label, strict=True)] for of, label in zip(ours, labels, strict=True)]
    champion, rival = requests(tmp_path, "c", ours), requests(tmp_path, "r", better)
    traffic = (Traffic(requests=9000, failures=3, latency_p95_ms=7.25), Traffic(requests=9000, latency_p95_ms=7.5))
    files = told(tmp_path, labels)
    found = compared(champion, rival, files, kind="shadow", traffic=traffic)
    assert found.verdict is Verdict.PROMOTE
    for part in ("champion", "shadow", "Brier score", "failed requests", "7.25", "auc", "same label", "noria approve"):
        assert part in found.text
    assert "noria abandon example" in compared(rival, champion, files).text
    assert "noria" not in compared(champion, Source.captured()).text
