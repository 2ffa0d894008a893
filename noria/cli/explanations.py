"""One captured prediction, explained by the model that answers now."""

# ruff: noqa: S608 -- SQL is built from names of our own

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from noria import capture
from noria.aws.captures import Captures
from noria.aws.endpoints import Endpoint
from noria.aws.explanations import Explanations
from noria.aws.storage import Storage
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.explain import UnexplainedError
from noria.flags import Variant
from noria.names import version
from noria.spec import ModelSpec, Task
from noria.sql import MODEST, cursor
from noria.trace import Answering, answering
from noria.violations import MASK

VARIANTS: tuple[Variant, ...] = ("champion", "challenger")
"""Those that answer clients; a shadow's answers nobody hears."""

MOST_BYTES = 2**30
"""Of a variant's captured files, newest first, in which a request is looked for."""

_AT_ONCE = 64
_SHOWN, _BAR = 20, 24
_ALIKE = 1e-4
"""As golden rows: two machines do not round alike."""


class Feature(BaseModel):
    """`value` is what was asked, masked where the spec calls it sensitive; None is a missing value."""

    feature: str
    value: str | int | float | None
    contribution: float
    standard_error: float


class Explained(BaseModel):
    """A prediction: `average` and the features' contributions add up to `explained`.

    `explained` is what the model answers now: the probability of the positive class (binary), that of the predicted
    class (multiclass), or the number. `prediction` and `score` are what it answered then. `notes` say where the two may
    not be of the same model.
    """

    model: str
    package: str
    variant: str
    inference_id: str
    row: int
    at: datetime
    prediction: str
    score: float | None
    explained: float
    average: float
    features: list[Feature]
    notes: list[str]

    @property
    def text(self) -> str:
        score = "" if self.score is None else f" (score {self.score:.4g})"
        biggest = max((abs(feature.contribution) for feature in self.features), default=0.0)
        shown, left = self.features[:_SHOWN], self.features[_SHOWN:]
        width = max(len("average"), *(len(feature.feature) for feature in shown))
        asked = (
            f"{self.model}: row {self.row} of {self.inference_id}, asked at {self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        )
        lines = [
            f"{asked} UTC: the {self.variant} answered {self.prediction}{score}.",
            *self.notes,
            f"What each feature adds to the average prediction ({version(self.package)}, ± standard error):",
            f"  {'average':<{width}}  {self.average:+.4f}",
            *(_line(feature, width, biggest) for feature in shown),
        ]
        if left:
            lines.append(f"  {len(left)} others: {sum(feature.contribution for feature in left):+.4f}")
        return "\n".join([*lines, f"  {'= sum':<{width}}  {self.explained:+.4f}"])


def _line(feature: Feature, width: int, biggest: float) -> str:
    value = "missing" if feature.value is None else f"{feature.value:.6g}" if _is_number(feature) else feature.value
    bar = ("█" if feature.contribution > 0 else "░") * round(_BAR * abs(feature.contribution) / (biggest or 1))
    told = f"{feature.contribution:+.4f} ± {feature.standard_error:.4f}"
    return f"  {feature.feature:<{width}}  {told}  {bar:<{_BAR}}  {value}"


def _is_number(feature: Feature) -> bool:
    return isinstance(feature.value, int | float)


class _Captured(NamedTuple):
    at: datetime
    prediction: str
    score: float | None
    row: dict[str, Any]


@dataclass(frozen=True)
class Explainer:
    """Explains predictions of one model of an environment. Raises `Refused`."""

    deployed: Deployed
    spec: ModelSpec

    def explain(self, inference_id: str, row: int, *, days: int) -> Explained:
        spec, deployed = self.spec, self.deployed
        name = deployed.names.model(deployed.require(spec.model))
        storage = Storage(bucket=deployed.parameter("data-bucket"))
        variant, found = self._find(name, storage, inference_id, row, days)
        state = Endpoint(name=name).state()
        package = state.packages.get(variant) if state else None
        if package is None:
            raise Refused(f"{spec.model} has no {variant} that answers now: nothing can explain what it answered.")
        explanations = Explanations.of(spec, endpoint=name, storage=storage, registry=deployed.registry)
        try:
            local = explanations.of_row(package, found.row, variant)
        except UnexplainedError as error:
            raise Refused(f"{spec.model} cannot be explained: {error}.") from error
        features = [
            Feature(
                feature=feature,
                value=MASK if spec.features[feature].sensitive else found.row[feature],
                contribution=contribution.value,
                standard_error=contribution.standard_error,
            )
            for feature, contribution in local.contributions.items()
        ]
        then = answering(deployed.ledger.entries(spec.model), variant, found.at)
        return Explained(
            model=spec.model,
            package=package,
            variant=variant,
            inference_id=inference_id,
            row=row,
            at=found.at,
            prediction=found.prediction,
            score=found.score,
            explained=local.prediction,
            average=local.average,
            features=sorted(features, key=lambda feature: -abs(feature.contribution)),
            notes=list(self._notes(found, then, package, local.prediction)),
        )

    def _find(
        self, endpoint: str, storage: Storage, inference_id: str, row: int, days: int
    ) -> tuple[Variant, _Captured]:
        """The newest request of that inference id, in the files of the last days; the champion's first."""
        oldest = now = datetime.now(UTC)
        for variant in VARIANTS:
            captures = Captures(model=self.spec.model, endpoint=endpoint, storage=storage, variant=variant)
            files = iter(captures.newest(now=now, days=days, most_bytes=MOST_BYTES))
            while batch := list(islice(files, _AT_ONCE)):
                oldest = min(oldest, *(file.modified for file in batch))
                with tempfile.TemporaryDirectory(prefix="noria-captured-") as folder:
                    paths = [path for path in captures.fetch(batch, Path(folder)) if _holds(path, inference_id)]
                    if found := self._read(paths, inference_id):
                        if row not in found:
                            raise Refused(f"{inference_id} has rows 0 to {max(found)}: name one of them with --row.")
                        return variant, found[row]
        raise Refused(
            f"No request {inference_id!r} of {self.spec.model} is among those captured since "
            f"{oldest:%Y-%m-%d %H:%M} UTC ({days} days, and 1 GiB, are looked through). A request is captured minutes "
            f"after it was answered, and serve.capture keeps {self.spec.serve.capture} % of them; look further back "
            "with --days."
        )

    def _read(self, paths: list[Path], inference_id: str) -> dict[int, _Captured]:
        """Its answered rows by number; of two requests with that id the later one's."""
        if not paths:
            return {}
        columns = ", ".join(f"f{place}" for place in range(len(self.spec.features)))
        with cursor(MODEST) as db:
            rows = db.execute(
                f"SELECT row, time, prediction, score, {columns} FROM {capture.relation(paths, self.spec)} "
                "WHERE NOT malformed AND prediction IS NOT NULL AND inference_id = ? ORDER BY time",
                [inference_id],
            ).fetchall()
        return {
            row: _Captured(at.replace(tzinfo=UTC), prediction, score, capture.instance(values, self.spec))
            for row, at, prediction, score, *values in rows
        }

    def _notes(self, found: _Captured, then: Answering, now: str, explained: float) -> Iterator[str]:
        if not then.packages:
            yield f"The ledger does not say who answered then; {version(now)} answers now, and is what is explained."
        elif then.packages != (now,):
            yield f"It was {then.text} that answered; {version(now)} answers now, and is what is explained."
        if self.spec.task is Task.MULTICLASS:
            return
        answered = found.score if self.spec.task is Task.BINARY else float(found.prediction)
        if answered is not None and abs(answered - explained) > _ALIKE * max(1, abs(answered)):
            yield f"The row is answered {explained:.6g} now, {answered:.6g} then."


def _holds(path: Path, inference_id: str) -> bool:
    """Whether the file may: most do not, and need not be parsed."""
    return inference_id.encode() in path.read_bytes()
