"""The gates: what a candidate must reach to be registered. Every failure is collected, each with its remedy."""

from collections.abc import Iterator

from noria.evaluation import Gate, Measurements
from noria.spec import Metric, MetricGate, ModelSpec

# SageMaker keeps 1,024 characters of a step's failure reason (API reference, PipelineExecutionStep).
_REASON_LENGTH = 1000


def judge(measured: Measurements, spec: ModelSpec) -> Gate:
    """Compare a candidate's measurements with the spec's gates; no gates, no failures."""
    failures = tuple(_failures(measured, spec))
    return Gate(passed=not failures, reasons=failures, reason=_shortened(" ".join(failures)))


def _failures(measured: Measurements, spec: ModelSpec) -> Iterator[str]:
    if measured.serves == "sklearn" and spec.server == "noria" and spec.serve.graviton:
        yield (
            f"nothing can serve it on {spec.serve.instance}: that is one of Graviton's instances (arm64), and AWS's "
            f"scikit-learn image, which must serve it because {measured.serves_because}, is for x86 alone: "
            "serve it on an instance like ml.m5.large, or train an estimator that has an ONNX form."
        )
    for metric, gate in spec.gates.metrics.items():
        yield from _metric(measured, metric, gate)
    limit = spec.gates.latency_p95_ms
    if limit is not None and measured.latency_p95_ms > limit:
        yield (
            f"latency_p95_ms is {measured.latency_p95_ms:.1f}, above its limit {limit:g}: "
            "train fewer or smaller trees, or raise the gate."
        )
    yield from _calibration(measured, spec.gates.calibration)
    for segment, largest in spec.gates.bias.items():
        yield from _bias(measured, spec.primary_metric, segment, largest)


def _metric(measured: Measurements, metric: Metric, gate: MetricGate) -> Iterator[str]:
    estimate = measured.metrics.get(metric)
    if estimate is None:
        yield (
            f"{metric} cannot be computed on the {measured.slice.rows} newest rows: "
            "upload data in which every class occurs, or gate another metric."
        )
        return
    if gate.min is not None and estimate.value < gate.min:
        yield (
            f"{metric} is {estimate.value:.4f}, below its minimum {gate.min:g}: "
            "give it more data or better features, or lower the gate."
        )
    if gate.max is not None and estimate.value > gate.max:
        yield (
            f"{metric} is {estimate.value:.4f}, above its maximum {gate.max:g}: "
            "give it more data or better features, or raise the gate."
        )
    champion = measured.champion
    if gate.beats_champion_by is None or champion is None or metric not in champion.margins:
        return
    margin = champion.margins[metric].value
    if margin < gate.beats_champion_by:
        yield (
            f"{metric} is {estimate.value:.4f} against the champion's {champion.metrics[metric].value:.4f} on the same "
            f"rows, a margin of {margin:+.4f} where {gate.beats_champion_by:g} is asked: "
            "keep the champion, or train on newer data."
        )


def _calibration(measured: Measurements, limit: float | None) -> Iterator[str]:
    found = measured.calibration
    if limit is None or found is None or found.value <= limit:
        return
    off = max(found.bins, key=lambda b: abs(b.predicted - b.happened) * b.rows)
    yield (
        f"calibration error is {found.value:.4f} beyond chance, above its limit {limit:g}; where {off.predicted:.3f} "
        f"is predicted on average, it happens in {off.happened:.3f} of {off.rows:,} rows: "
        "train on newer data, do not weight or resample rows, calibrate the estimator, or raise the gate."
    )


def _bias(measured: Measurements, metric: Metric, segment: str, largest: float) -> Iterator[str]:
    values = {
        value: score.metrics[metric]
        for value, score in measured.segments.get(segment, {}).items()
        if metric in score.metrics
    }
    if len(values) < 2:
        return
    lowest, highest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    gap = values[highest] - values[lowest]
    if gap > largest:
        yield (
            f"{metric} differs by {gap:.4f} between {segment} {highest} ({values[highest]:.4f}) and {lowest} "
            f"({values[lowest]:.4f}), above the limit {largest:g}: "
            f"add data or features that describe {segment} {lowest if metric.higher_is_better else highest} better."
        )


def _shortened(text: str) -> str:
    return text if len(text) <= _REASON_LENGTH else f"{text[: _REASON_LENGTH - 2]} …"
