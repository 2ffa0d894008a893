"""What asks people to approve a version: the candidate beside the champion, its gates, the rule, and what to say."""

from collections.abc import Iterator
from datetime import datetime

from noria.approval import rule
from noria.evaluation import Estimate, Evaluation
from noria.page import Matter, Page
from noria.spec import METRICS, ModelSpec

_NAME, _NUMBER = 12, 28


def request(spec: ModelSpec, package: str, number: int, evaluation: Evaluation, *, report: str, now: datetime) -> Page:
    """`number` is the version's, `report` the S3 URI of its evaluation; `now` is when it was registered, or so."""
    model = spec.model
    lines = [headline(spec, number, evaluation), "", *_comparison(spec, evaluation), "", *_gates(spec, evaluation)]
    until = f" before {now + spec.approval.within:%Y-%m-%d %H:%M} UTC" if spec.approval.within else ""
    asked = f"Risk {spec.approval.risk.value}. Who approves: {rule(spec.approval)}{until}."
    if spec.approval.automatic:
        do = "Nothing: it goes live by itself. Reject it if it must not."
    else:
        do = "Approve it, and it goes live behind a canary; or reject it."
    return Page(
        matter=Matter.TRAINED,
        subject=f"{model}: version {number} {'passed its gates' if spec.approval.automatic else 'awaits approval'}",
        what="\n".join([*lines, asked]),
        where=f"{package}\nReport: {report}\nModel card: noria card {model}/{number}",
        do=do,
        command=f"noria approve {package} --reason '…'\n    noria reject {package} --reason '…'",
    )


def headline(spec: ModelSpec, number: int, evaluation: Evaluation) -> str:
    """The primary metric of candidate and champion in one sentence."""
    metric = spec.primary_metric
    mine = evaluation.metrics.get(metric)
    score = f"{metric.value} {_told(mine)}" if mine else f"no {metric.value}"
    champion = evaluation.champion.metrics.get(metric) if evaluation.champion else None
    if champion:
        comparison = f"the champion has {champion.value:.3f} on the same rows"
    else:
        comparison = evaluation.champion_problem or "there is no champion to compare with"
    return f"{spec.model} version {number} passed its gates: {score}; {comparison}."


def _told(estimate: Estimate | None) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})" if estimate else "·"


def _comparison(spec: ModelSpec, evaluation: Evaluation) -> Iterator[str]:
    """Each metric with its interval, side by side on the same rows."""
    champion = evaluation.champion
    titles = ("candidate", "champion", "better by") if champion else ("candidate",)
    yield "".join([" " * _NAME, *(f"{title:<{_NUMBER}}" for title in titles)]).rstrip()
    for metric in METRICS[spec.task]:
        if metric not in evaluation.metrics:
            continue
        cells = [_told(evaluation.metrics[metric])]
        if champion:
            cells += [_told(champion.metrics.get(metric)), _told(champion.margins.get(metric))]
        yield "".join([f"{metric.value:<{_NAME}}", *(f"{cell:<{_NUMBER}}" for cell in cells)]).rstrip()
    measured = evaluation.slice
    days = f"{measured.first_event:%Y-%m-%d} to {measured.last_event:%Y-%m-%d}"
    yield f"Measured on {measured.rows:,} rows, {days}, newer than the {evaluation.trained_on.rows:,} it learnt from."


def _gates(spec: ModelSpec, evaluation: Evaluation) -> Iterator[str]:
    """What it had to reach, and reached."""
    gates = spec.gates
    for metric, gate in gates.metrics.items():
        mine = _told(evaluation.metrics.get(metric))
        if gate.min is not None:
            yield f"Gate: {metric.value} at least {gate.min:g}, and is {mine}."
        if gate.max is not None:
            yield f"Gate: {metric.value} at most {gate.max:g}, and is {mine}."
        if gate.beats_champion_by is not None:
            margin = evaluation.champion.margins.get(metric) if evaluation.champion else None
            reached = f"and does by {_told(margin)}" if margin else "and there is none"
            yield f"Gate: {metric.value} better than the champion's by at least {gate.beats_champion_by:g}, {reached}."
    if gates.latency_p95_ms is not None:
        yield f"Gate: latency p95 at most {gates.latency_p95_ms:g} ms, and is {evaluation.latency_p95_ms:.1f} ms."
    if gates.calibration is not None and evaluation.calibration:
        yield f"Gate: calibration error at most {gates.calibration:g}, and is {evaluation.calibration.value:.3f}."
    for segment, most in gates.bias.items():
        yield f"Gate: between the values of {segment} at most {most:g} of {spec.primary_metric.value}, and kept."
