"""What late labels say of a model: how right it is, whether its probabilities hold, and whom it treats how."""

from collections.abc import Iterator
from dataclasses import dataclass

from noria.evaluation import Estimate, Fairness, Rates
from noria.labels import Coverage
from noria.quality import Quality, Score
from noria.report import charts
from noria.report.html import Html, join, tag
from noria.report.numbers import figure, hours, percent, span
from noria.report.page import Column, aside, facts, name, shortened, table, tiles
from noria.spec import Metric
from noria.units import count

_VALUES = 30


def primary(quality: Quality) -> tuple[Metric, Estimate]:
    """The metric that speaks for the model, where there is any."""
    loss = quality.registration
    return (loss.metric, loss.live) if loss else next(iter(quality.overall.metrics.items()))


def metrics(quality: Quality) -> Html | None:
    """Each metric with its interval; the first beside its value at registration. None without labels to tell."""
    if not quality.overall.metrics:
        return None
    loss = quality.registration
    rows = []
    for metric, estimate in quality.overall.metrics.items():
        then = loss.registered if loss and loss.metric is metric else None
        rows.append(
            [
                join(metric.value, tag("small", "higher is better" if metric.higher_is_better else "lower is better")),
                tag("b", figure(estimate.value)),
                _between(estimate),
                join(figure(then.value), tag("small", _between(then))) if then else None,
                charts.interval(
                    estimate,
                    then.value,
                    charts.around([estimate, then]),
                    title=f"{metric.value} {figure(estimate.value)}, {_between(estimate)}; at registration "
                    f"{figure(then.value)}",
                )
                if then
                else None,
            ]
        )
    head = [
        Column("metric"),
        Column("now", figures=True),
        Column("95% interval", figures=True),
        Column("at registration", figures=True),
        Column("against registration"),
    ]
    told = f"By {count(quality.matched, 'prediction')} that have a label, of {quality.predictions:,}. {_lost(quality)}"
    unmatched = quality.unmatched_labels
    return join(
        tag("p", told, class_="lead"),
        table("What the labelled predictions are worth; upright line: at registration", head, rows),
        aside(f"{count(unmatched, 'label')} name predictions that were not found.") if unmatched else None,
    )


def _lost(quality: Quality) -> str:
    loss = quality.registration
    if loss is None:
        return ""
    if loss.value:
        return (
            f"{loss.metric.value} is {percent(loss.share.value)} worse than at registration "
            f"({percent(loss.share.low)} to {percent(loss.share.high)})."
        )
    return f"{loss.metric.value} is not surely worse than at registration: chance explains the difference."


def _between(estimate: Estimate) -> str:
    return f"{figure(estimate.low)} to {figure(estimate.high)}"


def coverage(found: Coverage) -> Html:
    """How many predictions have their label by now, and how late labels come."""
    old = f"of {count(found.predictions, 'prediction')} of {span(found.since, found.until)}"
    return join(
        tag("p", f"Labels {old}, which are old enough to have one.", class_="lead"),
        tiles(
            (percent(found.share), "have a label"),
            (hours(found.delay_p50_hours), "until a label comes, median"),
            (hours(found.delay_p95_hours), "95% of labels come within"),
        ),
    )


def calibration(quality: Quality) -> Html | None:
    """The reliability diagram; None of what has no probabilities."""
    found = quality.calibration
    if found is None:
        return None
    points = [(each.predicted, each.happened, each.rows / found.rows) for each in found.bins if each.rows]
    title = (
        f"Reliability: {len(points)} groups of predictions by probability; the expected calibration error is "
        f"{figure(found.error)}"
    )
    head = [
        Column("probability said", figures=True),
        Column("happened", figures=True),
        Column("rows", figures=True),
    ]
    rows = [[percent(each.predicted), percent(each.happened), f"{each.rows:,}"] for each in found.bins if each.rows]
    surely = "chance explains all of it" if not found.value else f"{figure(found.value)} without what chance explains"
    return join(
        tag(
            "p",
            f"Expected calibration error {figure(found.error)} over {count(found.rows, 'row')}: {surely}. A dot on the "
            "dashed line says what then happens; below it, the model promises too much. Larger dots are more rows.",
            class_="lead",
        ),
        tag(
            "div",
            tag(
                "article",
                charts.diagonal(points, title=title, across="probability said", up="share that happened"),
                class_="card",
            ),
            tag("article", table("The same in numbers", head, rows, class_="plain"), class_="card"),
            class_="cards",
        ),
    )


def segments(quality: Quality) -> Html | None:
    """Each segment's values: how right the model is about them, and how it treats them."""
    if not quality.overall.metrics:
        return None
    metric, _ = primary(quality)
    parts = [_segment(segment, quality, metric) for segment in dict.fromkeys([*quality.segments, *quality.fairness])]
    return join(*parts)


@dataclass(frozen=True, kw_only=True)
class _Value:
    """One value of a segment. The score is None where it has too few labels, the rates where nothing is selected."""

    label: str
    score: Score | None
    rates: Rates | None

    @property
    def rows(self) -> int:
        return max(self.score.rows if self.score else 0, self.rates.rows if self.rates else 0)


def _segment(segment: str, quality: Quality, metric: Metric) -> Html | None:
    scores, fairness = quality.segments.get(segment, {}), quality.fairness.get(segment)
    rates = fairness.values if fairness else {}
    values = [
        _Value(label=label, score=scores.get(label), rates=rates.get(label))
        for label in dict.fromkeys([*scores, *rates])
    ]
    values.sort(key=lambda value: (-value.rows, value.label))
    if not values:
        return None
    shown = values[:_VALUES]
    known = [value.score.metrics[metric] for value in shown if value.score and metric in value.score.metrics]
    overall = quality.overall.metrics.get(metric)
    scale = charts.around([*known, *([overall] if overall else [])])
    head = [Column("value"), Column("rows", figures=True)]
    head += [Column(metric.value, figures=True), Column("interval")] if known else []
    head += (
        [Column(title, figures=True) for title in ("selected", "found of positives", "false alarms")] if rates else []
    )
    rows = [
        [
            name(value.label),
            f"{value.rows:,}",
            *(_scored(value.score, metric, overall, scale) if known else []),
            *(_rated(value.rates) if rates else []),
        ]
        for value in shown
    ]
    return tag(
        "div",
        tag("h3", "By ", name(segment)),
        facts(*_unequal(fairness)) if fairness else None,
        table("Rows with labels, the most frequent value first; upright line: all rows", head, rows),
        aside(*_left_out(len(values) - len(shown), fairness)),
        class_="part",
    )


def _scored(score: Score | None, metric: Metric, overall: Estimate | None, scale: charts.Scale) -> list[str | None]:
    found = score.metrics.get(metric) if score else None
    if found is None:
        return ["–", None]
    title = f"{metric.value} {figure(found.value)}, {_between(found)}"
    reference = overall.value if overall else None
    return [tag("b", figure(found.value)), charts.interval(found, reference, scale, title=title)]


def _rated(rates: Rates | None) -> list[str | None]:
    if rates is None:
        return [None, None, None]
    return [percent(rate) for rate in (rates.selection_rate, rates.true_positive_rate, rates.false_positive_rate)]


def _unequal(fairness: Fairness) -> Iterator[tuple[str, str]]:
    for term, found in (
        ("disparate impact", fairness.disparate_impact),
        ("equal opportunity difference", fairness.equal_opportunity),
        ("equalized odds difference", fairness.equalized_odds),
    ):
        if found:
            yield term, f"{figure(found.value)} ({_between(found)})"


def _left_out(more: int, fairness: Fairness | None) -> Iterator[str]:
    if more > 0:
        yield f"{count(more, 'rarer value')} not listed. "
    if fairness and (few := fairness.left_out):
        yield f"Left out for having too few rows to judge: {', '.join(map(shortened, [*few][:5]))}"
        yield " …" if len(few) > 5 else "."
