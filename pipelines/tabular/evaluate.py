"""A candidate is measured on rows newer than its own, beside the champion, through the code that will serve it."""

import csv
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noria import calibration, fairness, masking
from noria.evaluation import (
    SEGMENT_ROWS,
    Calibration,
    ChampionScore,
    Evaluation,
    Fairness,
    Form,
    Measurements,
    Rates,
    SegmentScore,
    Served,
    Slice,
    Training,
)
from noria.gates import judge
from noria.spec import ModelSpec, Task
from noria.sql import Resources, connect, identifier, literal
from pipelines.serving.inference import CSV, JSON
from pipelines.tabular.metrics import Bootstrap, Scorer, binary_scorer, multiclass_scorer, regression_scorer
from pipelines.tabular.served import CannotPredict, served
from pipelines.tabular.signature import Signature

BATCH = 50_000
LATENCY_CALLS, LATENCY_RUNS, LATENCY_WARM_UP = 100, 3, 20

Row = tuple[Any, ...]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Champion:
    """The package that is live, and its bundle."""

    package: str
    archive: Path


@dataclass(frozen=True)
class Truth:
    """The newest rows: features (for requests), labels and segments, in one order."""

    rows: Path
    target: NDArray[Any]
    segments: dict[str, NDArray[Any]]
    slice: Slice


class Forecasts(NamedTuple):
    """What was said to be how probable, (rows,), and whether it happened, (rows,)."""

    probabilities: NDArray[np.float64]
    happened: NDArray[np.bool_]


def evaluate(
    rows: Path,
    spec: ModelSpec,
    candidate: Path,
    *,
    champion: Champion | None,
    images: Mapping[Form, str],
    resources: Resources,
) -> Evaluation:
    """Measure the bundle `candidate` (model.tar.gz) on prepared rows, and judge it by the spec's gates.

    `images` names what serves each form of a model.
    """
    truth = _truth(rows, spec, resources)
    with _unpacked(candidate) as bundle:
        asked = Asked(bundle)
        answers = asked.answers(truth, resources)
        scorer = asked.scorer(answers, truth, spec)
        mine = Bootstrap.of(scorer, truth.slice.rows, seed=spec.train.seed)
        forecasts = asked.forecasts(answers, truth, spec)
        training = Training.model_validate_json((bundle / "training.json").read_text(encoding="utf-8"))
        latency = asked.latency_p95_ms(truth, resources)
    score, problem = _champion(champion, mine, truth, spec, resources)
    measured = Measurements(
        **{field: getattr(training, field) for field in Served.model_fields},
        image=images[training.serves],
        model=spec.model,
        slice=truth.slice,
        trained_on=training.rows,
        metrics=mine.estimates,
        segments={segment: dict(_segment(values, scorer)) for segment, values in truth.segments.items()},
        calibration=_calibration(forecasts, resources) if forecasts else None,
        fairness={segment: _fairness(values, forecasts) for segment, values in truth.segments.items()}
        if forecasts and spec.task is Task.BINARY
        else {},
        champion=score,
        champion_problem=problem,
        latency_p95_ms=latency,
    )
    shown = masking.quality(
        measured, masking.sensitive(spec)
    )  # before it is judged: reasons name the values of segments
    return Evaluation(**dict(shown), gate=judge(shown, spec))


def texts_of(archive: Path, *names: str) -> dict[str, str]:
    """Files of a bundle by name."""
    with _unpacked(archive) as bundle:
        return {name: (bundle / name).read_text(encoding="utf-8") for name in names}


def _champion(
    champion: Champion | None, mine: Bootstrap, truth: Truth, spec: ModelSpec, resources: Resources
) -> tuple[ChampionScore | None, str | None]:
    """The champion's score; or why it has none: one that cannot answer today's rows must not keep its place for it."""
    if champion is None:
        return None, None
    try:
        with _unpacked(champion.archive) as bundle:
            asked = Asked(bundle)
            scorer = asked.scorer(asked.answers(truth, resources), truth, spec)
            theirs = Bootstrap.of(scorer, truth.slice.rows, seed=spec.train.seed)
    except Exception as error:  # noqa: BLE001 - whatever code the champion carries, its failure is a finding
        return None, f"{champion.package} cannot answer these rows: {error}"
    score = ChampionScore(package=champion.package, metrics=theirs.estimates, margins=mine.margins(theirs))
    return score, None


def _segment(values: NDArray[Any], scorer: Scorer) -> Iterator[tuple[str, SegmentScore]]:
    for value in sorted({value for value in values if value is not None}):
        mask = values == value
        rows = int(mask.sum())
        if rows >= SEGMENT_ROWS:
            yield str(value), SegmentScore(rows=rows, metrics=scorer(mask.astype(np.float64)))


def _calibration(forecasts: Forecasts, resources: Resources) -> Calibration | None:
    with connect(resources) as db:
        rows = np.arange(len(forecasts.happened))
        db.register(
            "forecast", {"inference_id": rows, "p": forecasts.probabilities, "y": forecasts.happened.astype(int)}
        )
        return calibration.of_forecasts(db, "SELECT inference_id, p, y FROM forecast")


def _fairness(values: NDArray[Any], forecasts: Forecasts) -> Fairness:
    told = values != None  # noqa: E711 - of each element
    names, place = np.unique(values[told].astype(str), return_inverse=True)
    selected, positive = forecasts.probabilities[told] >= 0.5, forecasts.happened[told]
    counts = np.array(
        [
            np.bincount(place, weights=which, minlength=len(names))
            for which in (np.ones(len(place)), selected, positive, selected & positive)
        ],
        dtype=int,
    )
    return fairness.measure(
        {
            name: Rates(rows=rows, selected=selected, positives=positives, true_positives=hits)
            for name, (rows, selected, positives, hits) in zip(names.tolist(), counts.T.tolist(), strict=True)
        }
    )


def _truth(rows: Path, spec: ModelSpec, resources: Resources) -> Truth:
    columns = [spec.target, spec.time, *spec.segments]
    with connect(resources) as db:
        found = db.execute(
            f"SELECT {', '.join(identifier(column) for column in columns)} FROM read_parquet({literal(str(rows))})"  # noqa: S608
        ).fetchnumpy()
    moments = found[spec.time]
    return Truth(
        rows=rows,
        target=np.asarray(found[spec.target]),
        segments={segment: _or_none(found[segment]) for segment in spec.segments},
        slice=Slice(
            rows=len(moments), first_event=moments.min().astype(object), last_event=moments.max().astype(object)
        ),
    )


def _or_none(column: NDArray[Any]) -> NDArray[Any]:
    """Missing values as None, which `np.ma.filled` cannot do: it takes None for "?"."""
    values = np.ma.getdata(column).astype(object)
    values[np.ma.getmaskarray(column)] = None
    return values


# --- a bundle, asked as the endpoint would ask it


class Asked:
    """An unpacked model bundle behind its server and its own signature."""

    def __init__(self, bundle: Path) -> None:
        self.signature = Signature.model_validate_json((bundle / "signature.json").read_text(encoding="utf-8"))
        self._ask = served(bundle)

    def scorer(self, answers: Sequence[Answer], truth: Truth, spec: ModelSpec) -> Scorer:
        """Compare the answer of every row with the truth. Raises `CannotPredict`."""
        if spec.task is Task.REGRESSION:
            return regression_scorer(truth.target, np.array([answer["prediction"] for answer in answers]))
        known = self.signature.label_texts
        if spec.task is Task.BINARY:
            unknown = set(truth.target) - set(known)
            if unknown:
                raise CannotPredict(f"it knows the labels {known} and the newest rows hold {sorted(unknown)}")
            return binary_scorer(truth.target == known[1], np.array([answer["score"] for answer in answers]))
        # A label that it was never taught has probability zero: wrong, and expensively so.
        labels = [*known, *sorted(set(truth.target) - set(known))]
        probabilities = np.zeros((len(answers), len(labels)))
        probabilities[:, : len(known)] = [
            [answer["scores"][str(label)] for label in self.signature.labels] for answer in answers
        ]
        position = {label: index for index, label in enumerate(labels)}
        return multiclass_scorer(np.array([position[label] for label in truth.target]), probabilities)

    def forecasts(self, answers: Sequence[Answer], truth: Truth, spec: ModelSpec) -> Forecasts | None:
        """Of the positive label, or of the label predicted; None of a regression."""
        if spec.task is Task.REGRESSION:
            return None
        known = self.signature.label_texts
        if spec.task is Task.BINARY:
            return Forecasts(np.array([answer["score"] for answer in answers]), truth.target == known[1])
        probabilities = np.array(
            [[answer["scores"][str(label)] for label in self.signature.labels] for answer in answers]
        )
        return Forecasts(probabilities.max(axis=1), np.array(known)[probabilities.argmax(axis=1)] == truth.target)

    def latency_p95_ms(self, truth: Truth, resources: Resources) -> float:
        """95th percentile of one-row requests, from body to body: the median of three runs, after a warm-up.

        A busy machine only ever adds to a time, and a run of bad luck should not fail a good model.
        """
        names = [feature.name for feature in self.signature.features]
        rows = list(islice(self._rows(truth, resources), LATENCY_CALLS))
        bodies = [json.dumps({"instances": [dict(zip(names, row, strict=True))]}).encode() for row in rows]
        for index in range(LATENCY_WARM_UP):
            self._timed(bodies[index % len(bodies)])
        runs = [
            np.percentile([self._timed(bodies[index % len(bodies)]) for index in range(LATENCY_CALLS)], 95)
            for _ in range(LATENCY_RUNS)
        ]
        return float(np.median(runs)) * 1000

    def _timed(self, body: bytes) -> float:
        start = time.perf_counter()
        self._ask(body, JSON)
        return time.perf_counter() - start

    def answers(self, truth: Truth, resources: Resources) -> list[Answer]:
        """To every row, in their order. Raises `CannotPredict`."""
        answers: list[Answer] = []
        rows = self._rows(truth, resources)
        while batch := list(islice(rows, BATCH)):
            predictions = self._ask(_csv(batch).encode(), CSV)
            if len(predictions) != len(batch):
                raise CannotPredict(f"asked {len(batch)} rows, it answered {len(predictions)}")
            answers += predictions
        return answers

    def _rows(self, truth: Truth, resources: Resources) -> Iterator[Row]:
        """The features of each row, in the order of this bundle's signature."""
        names = ", ".join(identifier(feature.name) for feature in self.signature.features)
        with connect(resources) as db:
            result = db.execute(f"SELECT {names} FROM read_parquet({literal(str(truth.rows))})")  # noqa: S608
            while batch := result.fetchmany(BATCH):
                yield from batch


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def _unpacked(archive: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)
