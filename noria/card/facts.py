"""From a record to a card: every number and name comes from the record, and is told once, here.

purpose ─ data ─ method ─ quality ─ segments, bias ─ explanations ─ limits ─ gates ─ lineage ─ approvals ─ deployments
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from noria import masking
from noria.card.document import Block, Card, Facts, Heading, Histogram, Histograms, Interval, Said, Section, Table
from noria.evaluation import Estimate, Evaluation, Fairness
from noria.ledger import Entry
from noria.names import version
from noria.profile import ColumnProfile, Profile
from noria.record import Dataset, Record, Standing
from noria.report.charts import around
from noria.report.numbers import figure, hours, moment, percent, span
from noria.spec import METRICS, Metric, ModelSpec
from noria.units import count

FEATURES, DATASETS, VALUES, WEIGHTS, ENTRIES, CATEGORIES = 60, 30, 20, 20, 50, 8
"""At most so many of each are listed; what is left out is counted."""

BARS, FEW_EDGES, FREQUENT = 16, 9, 3
"""Bars of a histogram, and categories named below it. Numbers of many values are cut at nine deciles (noria.profile),
those of few at fewer edges."""

_STANDING: Mapping[Standing, tuple[str, bool | None, str]] = {
    "live": ("Live", True, "answers requests"),
    "approved": ("Approved", True, "is approved, and does not answer as the champion"),
    "pending": ("Awaits approval", None, "awaits approval"),
    "rejected": ("Rejected", False, "was rejected"),
    "retired": ("Retired", None, "was retired with its endpoint"),
    "rolled back": ("Rolled back", False, "was taken back by an alarm"),
}


def card(record: Record) -> Card:
    """A pure function: the same record gives the same card."""
    record = masked(record)
    word, good, said = _STANDING[record.standing]
    sections = (
        Section(id="purpose", title="Purpose and owner", blocks=tuple(_purpose(record))),
        Section(id="data", title="Data", blocks=tuple(_data(record))),
        Section(id="method", title="Method", blocks=tuple(_method(record))),
        Section(id="quality", title="Quality", blocks=tuple(_quality(record))),
        Section(id="segments", title="Quality by segment", blocks=tuple(_segments(record))),
        Section(id="bias", title="Bias", blocks=tuple(_bias(record))),
        Section(id="explanations", title="What predictions rest on", blocks=tuple(_explanations(record))),
        Section(id="limits", title="Limits", blocks=tuple(_limits(record))),
        Section(id="gates", title="Gates", blocks=tuple(_gates(record))),
        Section(id="lineage", title="Lineage", blocks=tuple(_lineage(record))),
        Section(id="approvals", title="Approvals", blocks=tuple(_approvals(record))),
        Section(id="deployments", title="Deployments", blocks=tuple(_deployments(record))),
        Section(id="unknown", title="What is not known", blocks=tuple(_unknown(record))),
    )
    package = record.package
    return Card(
        model=record.model,
        version=package.version,
        package=package.arn,
        about=(
            f"version {package.version}",
            f"registered {moment(package.created)}",
            *([f"of {record.spec.owner.team}"] if record.spec else []),
        ),
        standing=word,
        good=good,
        said=f"Version {package.version} of {record.model} {said}{_since(record.live_since)}.",
        more=record.decisions[-1].summary if record.decisions else "Nobody has decided on it yet.",
        figures=tuple(_figures(record)),
        sections=tuple(section for section in sections if section.blocks),
    )


def masked(record: Record) -> Record:
    """Without values of sensitive features; where nobody knows which they are, without any."""
    if record.spec is None:
        why = "shown only with the spec, which says what of it is sensitive; that is not known"
        told = record.unknown | {part: why for part in ("baseline", "evaluation") if getattr(record, part)}
        evaluation = record.evaluation and record.evaluation.model_copy(update={"segments": {}, "fairness": {}})
        return record.model_copy(update={"baseline": None, "evaluation": evaluation, "unknown": told})
    hidden = masking.sensitive(record.spec)
    return record.model_copy(
        update={
            "baseline": record.baseline and masking.profiles(record.baseline, record.baseline, hidden)[0],
            "evaluation": record.evaluation and masking.quality(record.evaluation, hidden),
        }
    )


def _since(at: datetime | None) -> str:
    return f" since {moment(at)}" if at else ""


def _figures(record: Record) -> Iterator[tuple[str, str]]:
    if (evaluation := record.evaluation) and (metric := primary(record)):
        yield figure(evaluation.metrics[metric].value), f"{metric.value} on newer rows"
        yield f"{evaluation.trained_on.rows:,}", "rows trained on"
        yield f"{figure(evaluation.latency_p95_ms)} ms", "for one row, 95th percentile"
    if record.request:
        yield f"{len(record.request.datasets):,}", "dataset" if len(record.request.datasets) == 1 else "datasets"


def primary(record: Record) -> Metric | None:
    """The metric that speaks for the model, where it could be measured."""
    if record.evaluation is None:
        return None
    wanted = record.spec.primary_metric if record.spec else next(iter(record.evaluation.metrics), None)
    return wanted if wanted in record.evaluation.metrics else None


# --- sections


def _purpose(record: Record) -> Iterator[Block]:
    spec = record.spec
    if spec is None:
        return
    yield Said(text=spec.purpose or "The spec does not say what it is for (purpose).")
    pairs = {
        "model": f"{record.model}, version {record.package.version}",
        "owner": spec.owner.team,
        "pages go to": spec.owner.page or "the environment's topic alone",
        "answers": f"{spec.target}, {spec.task.value.replace('_', ' ')}",
        "from": count(len(spec.features), "feature"),
        "served": str(spec.serve),
    }
    yield Facts(pairs=tuple(pairs.items()))


def _data(record: Record) -> Iterator[Block]:
    if record.evaluation:
        learnt, held = record.evaluation.trained_on, record.evaluation.slice
        yield Said(
            text=f"Trained on {count(learnt.rows, 'row')} of {span(learnt.first_event, learnt.last_event)}; measured "
            f"on {count(held.rows, 'row')} that are newer, of {span(held.first_event, held.last_event)}."
        )
    if record.datasets:
        yield Table(
            caption="Datasets, as they were uploaded and accepted",
            columns=(
                Heading(title="file"),
                Heading(title="rows", figures=True),
                Heading(title="events"),
                Heading(title="SHA-256"),
                Heading(title="uploaded by"),
                Heading(title="warnings", figures=True),
            ),
            rows=tuple(_dataset(dataset) for dataset in record.datasets[:DATASETS]),
        )
        yield from _more(len(record.datasets) - DATASETS, "dataset")
    if record.baseline:
        yield from _profile(record.baseline)


def _dataset(dataset: Dataset) -> tuple[str | None, ...]:
    told, report = dataset.told, dataset.report
    return (
        dataset.manifest.filename if dataset.manifest else told.source_key or told.key,
        f"{told.rows:,}",
        span(told.first_event, told.last_event),
        told.sha256[:12],
        dataset.uploaded_by or "not known",
        f"{len(report.violations)}" if report else "not known",
    )


def _profile(profile: Profile) -> Iterator[Block]:
    columns = list(profile.features.items())
    if profile.prediction:
        columns.insert(0, ("(prediction)", profile.prediction))
    yield Histograms(of=tuple(_histogram(name, column) for name, column in columns[:FEATURES]))
    yield from _more(len(columns) - FEATURES, "column")


def _histogram(name: str, column: ColumnProfile) -> Histogram:
    rows = column.rows or 1
    if column.kind == "category":
        bins = sorted(((label, of / rows) for label, of in column.bins().items()), key=lambda each: -each[1])
        rest = bins[CATEGORIES:]
        bins = bins[:CATEGORIES] + ([(count(len(rest), "other"), sum(s for _, s in rest))] if rest else [])
    else:
        bins = [(label, of / rows) for label, of in _bars(column).items()]
    facts = [] if column.kind == "number" else [(label, percent(share)) for label, share in bins[:FREQUENT]]
    if column.missing:
        facts.append(("missing", percent(column.missing / rows)))
    if column.min is not None and column.max is not None:
        facts.append(("range", f"{figure(column.min)} to {figure(column.max)}"))
        facts.append(("mean", figure(column.mean)))
    if column.distinct is not None:
        facts.append(("different values, about", f"{column.distinct:,}"))
    return Histogram(
        name=name,
        shares=tuple(bins),
        missing=column.missing / rows,
        facts=tuple(facts),
    )


def _bars(column: ColumnProfile) -> dict[str, float]:
    """Rows by equal parts of the range: bins that hold a tenth of the rows each would all be of one height.

    Within a bin, rows count as evenly spread. Few values, and what is masked, keep the bins that they have.
    """
    low, high, edges = column.min, column.max, column.edges
    if low is None or high is None or low == high or len(edges) < FEW_EDGES:
        return {label: float(rows) for label, rows in column.bins().items()}
    # The last finite edges may be the ends themselves: a bin without width holds nothing, or all at one place.
    ends = [low, *(min(max(edge, low), high) for edge in edges), high]
    width = (high - low) / BARS
    bars = [0.0] * BARS
    for (start, end), rows in zip(pairwise(ends), column.counts, strict=True):
        first, last = (min(int((at - low) / width), BARS - 1) for at in (start, end))
        for place in range(first, last + 1):
            inside = min(end, low + (place + 1) * width) - max(start, low + place * width)
            bars[place] += rows * (inside / (end - start) if end > start else 1 / (last + 1 - first))
    return {f"{figure(low + place * width)} to {figure(low + (place + 1) * width)}": n for place, n in enumerate(bars)}


def _method(record: Record) -> Iterator[Block]:
    pairs: dict[str, str] = {}
    if training := record.training:
        pairs["estimator"] = training.estimator
        if training.iterations is not None:
            pairs["iterations"] = f"{training.iterations:,}"
        given = ", ".join(f"{name} = {value}" for name, value in sorted(training.hyperparameters.items()))
        pairs["hyperparameters"] = given or "the estimator's own"
        form = "ONNX" if training.serves == "onnx" else "scikit-learn"
        pairs["served as"] = f"{form}{f': {training.serves_because}' if training.serves_because else ''}"
    if spec := record.spec:
        pairs["seed"] = str(spec.train.seed)
        pairs["split"] = f"by {spec.time}: the newest rows are held out, at most {percent(spec.train.holdout)}"
        pairs["trained on"] = spec.train.instance
    if record.registered and isinstance(took := record.registered.details.get("hours"), int | float):
        pairs["instance time"] = hours(took)
    if record.package.image:
        pairs["image"] = record.package.image
    if record.package.bytes is not None:
        pairs["bundle"] = f"{record.package.bytes:,} bytes"
    if pairs:
        yield Facts(pairs=tuple(pairs.items()))


def _quality(record: Record) -> Iterator[Block]:
    evaluation = record.evaluation
    if evaluation is None:
        return
    rival = evaluation.champion
    head = [Heading(title="metric"), Heading(title="value", figures=True), Heading(title="95% interval", figures=True)]
    if rival:
        against = version(rival.package)
        head += [Heading(title=f"champion ({against})", figures=True), Heading(title="better by", figures=True)]
    head.append(Heading(title="against the champion" if rival else "interval"))
    yield Table(
        caption=f"On {count(evaluation.slice.rows, 'row')} newer than those of the training",
        columns=tuple(head),
        rows=tuple(_measured(metric, value, evaluation) for metric, value in evaluation.metrics.items()),
    )
    if evaluation.champion_problem:
        yield Said(text=f"Not compared with the champion: {evaluation.champion_problem}.", aside=True)
    yield Said(
        text="Intervals are of 95 %, and cover the chance of which rows were seen, and nothing else. "
        f"One row is answered within {figure(evaluation.latency_p95_ms)} ms in 95 of 100 cases.",
        aside=True,
    )
    if found := evaluation.calibration:
        surely = f"{figure(found.value)} without what chance explains" if found.value else "chance explains all of it"
        yield Said(text=f"Expected calibration error {figure(found.error)} over {count(found.rows, 'row')}: {surely}.")
        yield Table(
            caption="Probabilities said, and what then happened",
            columns=tuple(Heading(title=title, figures=True) for title in ("said", "happened", "rows")),
            rows=tuple((percent(b.predicted), percent(b.happened), f"{b.rows:,}") for b in found.bins if b.rows),
        )


def _measured(metric: Metric, value: Estimate, evaluation: Evaluation) -> tuple[str | Interval | None, ...]:
    better = "higher is better" if metric.higher_is_better else "lower is better"
    cells: list[str | Interval | None] = [f"{metric.value} ({better})", figure(value.value), between(value)]
    rival = evaluation.champion
    theirs = rival.metrics.get(metric) if rival else None
    if rival:
        margin = rival.margins.get(metric)
        cells.append(f"{figure(theirs.value)} ({between(theirs)})" if theirs else None)
        cells.append(f"{figure(margin.value)} ({between(margin)})" if margin else None)
    scale = around([value, *([theirs] if theirs else [])])
    cells.append(Interval(estimate=value, reference=theirs.value if theirs else None, low=scale.low, high=scale.high))
    return tuple(cells)


def between(estimate: Estimate) -> str:
    return f"{figure(estimate.low)} to {figure(estimate.high)}"


def _segments(record: Record) -> Iterator[Block]:
    evaluation, metric = record.evaluation, primary(record)
    if evaluation is None or metric is None:
        return
    for segment, scores in evaluation.segments.items():
        shown = sorted(scores.items(), key=lambda each: (-each[1].rows, each[0]))
        measured = [m for m in evaluation.metrics if any(m in score.metrics for score in scores.values())]
        yield Table(
            caption=f"By {segment}, the most frequent value first",
            columns=(
                Heading(title=segment),
                Heading(title="rows", figures=True),
                *(Heading(title=m.value, figures=True) for m in measured),
            ),
            rows=tuple(
                (value, f"{score.rows:,}", *(figure(score.metrics.get(m)) for m in measured))
                for value, score in shown[:VALUES]
            ),
        )
        yield from _more(len(shown) - VALUES, "rarer value")


def _bias(record: Record) -> Iterator[Block]:
    if record.evaluation is None:
        return
    for segment, fairness in record.evaluation.fairness.items():
        measures = tuple(_unequal(fairness))
        if measures:
            yield Facts(pairs=(("by", segment), *measures))
        rates = sorted(fairness.values.items(), key=lambda each: (-each[1].rows, each[0]))
        yield Table(
            caption=f"How the values of {segment} are treated",
            columns=(
                Heading(title=segment),
                *(
                    Heading(title=title, figures=True)
                    for title in ("rows", "selected", "found of positives", "false alarms")
                ),
            ),
            rows=tuple(
                (
                    value,
                    f"{rate.rows:,}",
                    *(percent(r) for r in (rate.selection_rate, rate.true_positive_rate, rate.false_positive_rate)),
                )
                for value, rate in rates[:VALUES]
            ),
        )
        yield from _more(len(rates) - VALUES, "rarer value")


def _unequal(fairness: Fairness) -> Iterator[tuple[str, str]]:
    for term, found in (
        ("disparate impact (1 is equal)", fairness.disparate_impact),
        ("equal opportunity difference", fairness.equal_opportunity),
        ("equalized odds difference", fairness.equalized_odds),
    ):
        if found:
            yield term, f"{figure(found.value)} ({between(found)})"


def _explanations(record: Record) -> Iterator[Block]:
    found = record.attribution
    if found is None or not found.weights:
        return
    weights = sorted(found.weights.items(), key=lambda each: (-each[1].share, each[0]))
    yield Said(
        text=f"Shares of the mean absolute Shapley values over {count(found.rows, 'row')} of the training, with their "
        "standard errors."
    )
    largest = weights[0][1].share + 2 * weights[0][1].share_error or 1.0
    yield Table(
        caption="The heaviest feature first",
        columns=(
            Heading(title="feature"),
            Heading(title="share", figures=True),
            Heading(title="standard error", figures=True),
            Heading(title="within two standard errors"),
        ),
        rows=tuple(
            (
                feature,
                percent(weight.share),
                percent(weight.share_error),
                Interval(
                    estimate=Estimate(
                        value=weight.share,
                        low=max(weight.share - 2 * weight.share_error, 0),
                        high=weight.share + 2 * weight.share_error,
                    ),
                    reference=None,
                    low=0,
                    high=largest,
                ),
            )
            for feature, weight in weights[:WEIGHTS]
        ),
    )
    yield from _more(len(weights) - WEIGHTS, "lighter feature")


def _limits(record: Record) -> Iterator[Block]:
    for text in limits(record):
        yield Said(text=text)


def limits(record: Record) -> Iterator[str]:
    """What its owner says it is not for, and what follows from how it was made."""
    if record.spec:
        yield from record.spec.limits
    evaluation = record.evaluation
    if evaluation is None:
        return
    yield (
        f"It has learnt from nothing that happened after {moment(evaluation.trained_on.last_event)}, and was measured "
        f"on nothing after {moment(evaluation.slice.last_event)}."
    )
    if record.spec and (lacking := [m.value for m in METRICS[record.spec.task] if m not in evaluation.metrics]):
        yield f"Not measured, being undefined on the rows held out: {', '.join(lacking)}."
    for segment, fairness in evaluation.fairness.items():
        if few := fairness.left_out:
            named = ", ".join([*few][:5])
            yield f"Too few rows to judge these values of {segment}: {named}{' …' if len(few) > 5 else ''}."


def _gates(record: Record) -> Iterator[Block]:
    evaluation, spec = record.evaluation, record.spec
    if evaluation is None:
        return
    failed = "; ".join(evaluation.gate.reasons)
    yield Said(text="It passed every gate." if evaluation.gate.passed else f"It did not pass its gates: {failed}")
    rows = tuple(_asked(spec, evaluation)) if spec else ()
    if rows:
        yield Table(
            caption="What was asked, and what was measured",
            columns=(Heading(title="gate"), Heading(title="asked"), Heading(title="measured", figures=True)),
            rows=rows,
        )


def _asked(spec: ModelSpec, evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    for metric, gate in spec.gates.metrics.items():
        found = evaluation.metrics.get(metric)
        told = figure(found.value if found else None)
        if gate.min is not None:
            yield metric.value, f"at least {gate.min:g}", told
        if gate.max is not None:
            yield metric.value, f"at most {gate.max:g}", told
        if gate.beats_champion_by is not None:
            margin = evaluation.champion.margins.get(metric) if evaluation.champion else None
            asked = f"better than the champion by {gate.beats_champion_by:g}"
            yield metric.value, asked, figure(margin.value) if margin else "no champion to compare with"
    if (limit := spec.gates.latency_p95_ms) is not None:
        yield "latency_p95_ms", f"at most {limit:g}", figure(evaluation.latency_p95_ms)
    if (limit := spec.gates.calibration) is not None:
        error = evaluation.calibration.value if evaluation.calibration else None
        yield "calibration", f"at most {limit:g}", figure(error)
    for segment, largest in spec.gates.bias.items():
        scores = evaluation.segments.get(segment, {}).values()
        known = [score.metrics[spec.primary_metric] for score in scores if spec.primary_metric in score.metrics]
        apart = max(known) - min(known) if len(known) > 1 else None
        asked = f"{spec.primary_metric.value} of its values apart by at most {largest:g}"
        yield f"bias by {segment}", asked, figure(apart)


def _lineage(record: Record) -> Iterator[Block]:
    package, request = record.package, record.request
    pairs: dict[str, str | None] = {
        "package": package.arn,
        "registered by": package.author,
        "execution": record.execution,
        "cause": f"{request.cause.text} ({request.cause.identity})" if request else None,
        "training": request.token if request else None,
        "code": record.code,
        "datasets": record.dataset_hash,
        "champion then": record.champion,
        "bundle": package.model_data,
        "served file": record.golden.bundle if record.golden else None,
        "evaluation": package.metadata.get("noria:evaluation"),
        "baseline": package.metadata.get("noria:baseline"),
    }
    yield Facts(pairs=tuple((term, value) for term, value in pairs.items() if value))


def _approvals(record: Record) -> Iterator[Block]:
    package = record.package
    by = f" by {package.decided_by}" if package.decided_by else ""
    why = f": {package.reason}" if package.reason else ""
    yield Said(text=f"The registry says {package.approval}, changed {moment(package.decided)}{by}{why}.")
    yield from _told("Who decided, by the ledger", record.decisions)


def _deployments(record: Record) -> Iterator[Block]:
    yield from _told("What became of it, by the ledger", record.deployments)


def _told(caption: str, entries: Sequence[Entry]) -> Iterator[Block]:
    if not entries:
        return
    yield Table(
        caption=caption,
        columns=(
            Heading(title="entry", figures=True),
            Heading(title="when"),
            Heading(title="what"),
            Heading(title="in words", words=True),
        ),
        rows=tuple(
            (f"{entry.number}", moment(entry.at), entry.kind.replace("_", " "), entry.summary)
            for entry in entries[-ENTRIES:]
        ),
    )
    yield from _more(len(entries) - ENTRIES, "older entry", "older entries")


def _unknown(record: Record) -> Iterator[Block]:
    if record.unknown:
        yield Facts(pairs=tuple(sorted(record.unknown.items())))


def _more(number: int, noun: str, nouns: str | None = None) -> Iterable[Block]:
    return [Said(text=f"{count(number, noun, nouns)} not listed.", aside=True)] if number > 0 else []
