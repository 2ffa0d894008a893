"""A live model's answers explained: its endpoint is asked rows that no client asked, by requests that say so.

A package tells by `noria:attribution` where its attribution.json is; one without it cannot be explained.
"""

# ruff: noqa: S608 -- SQL is built from names and numbers of our own

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from noria import capture
from noria.aws.endpoints import CHALLENGER, CHAMPION, Endpoint
from noria.aws.predictor import CannotPredictError, Predictor
from noria.aws.registry import Registry
from noria.aws.storage import Storage
from noria.explain import (
    FEWEST_ROWS,
    MOST_ASKED,
    WINDOW_ROWS,
    Answer,
    Ask,
    Attribution,
    Local,
    Row,
    UnexplainedError,
    WindowAttribution,
    compare,
    local,
    rows_for,
    weights,
)
from noria.flags import Variant
from noria.profile import Source
from noria.serve import Mode
from noria.spec import ModelSpec
from noria.sql import MODEST, cursor

ATTRIBUTION = "noria:attribution"
"""Property of a package: where its attribution.json is."""

REQUEST_ROWS = 200
"""Of one request: milliseconds for most models, and little for data capture to keep."""

LONGEST = 60.0
"""Seconds for all questions of one explanation: an endpoint that is slower has clients to answer."""


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """Explains by asking the endpoint. Raises `UnexplainedError`, whose message says what is lacking."""

    spec: ModelSpec
    endpoint: Endpoint
    predictor: Predictor
    storage: Storage
    registry: Registry

    @classmethod
    def of(cls, spec: ModelSpec, *, endpoint: str, storage: Storage, registry: Registry) -> "Explanations":
        """`endpoint` is its name."""
        asked = Predictor(endpoint=endpoint, own=True)
        return cls(spec=spec, endpoint=Endpoint(name=endpoint), predictor=asked, storage=storage, registry=registry)

    def of_window(self, package: str, source: Source) -> WindowAttribution:
        """Compare what a window's predictions rest on with the training of `package`, the champion.

        `source` are its captured requests; a few rows of them are explained, always the same ones.
        """
        training = self.attribution(package)
        most = rows_for(len(training.features), most=WINDOW_ROWS, asked=MOST_ASKED)
        if most == 0:
            raise UnexplainedError(f"its {len(training.features)} features are too many to be asked about one by one")
        rows = self._sample(source, training.features, most)
        if len(rows) < FEWEST_ROWS:
            raise UnexplainedError(f"{len(rows)} answered rows are fewer than {FEWEST_ROWS}, which would say little")
        found = weights(
            rows,
            training.background,
            self._asking(package, training, CHAMPION),
            self.spec.task,
            pairs=training.pairs,
            seed=training.seed,
        )
        return compare(training.weights, found, rows=len(rows))

    def of_row(self, package: str, row: Row, variant: Variant) -> Local:
        """Explain what the variant that serves `package` answers to one row."""
        training = self.attribution(package)
        self._require(training.features)
        asked = {name: row[name] for name in training.features}
        ask = self._asking(package, training, variant)
        return local(asked, training.background, ask, self.spec.task, seed=training.seed)

    def attribution(self, package: str) -> Attribution:
        uri = self.registry.describe(package).metadata.get(ATTRIBUTION)
        if uri is None:
            raise UnexplainedError("its package was trained before attributions were kept: train it again")
        return Attribution.model_validate_json(self.storage.read(self.storage.key_of(uri)))

    def _sample(self, source: Source, features: Sequence[str], most: int) -> list[dict[str, Any]]:
        """Rows that were answered, at most so many, chosen by what identifies them."""
        self._require(features)
        columns = ", ".join(f"f{place}" for place in range(len(self.spec.features)))
        requests = capture.relation(source.paths, self.spec, since=source.since, until=source.until)
        with cursor(MODEST) as db:
            found = db.execute(
                f"SELECT {columns} FROM {requests} WHERE NOT malformed AND prediction IS NOT NULL "
                f"ORDER BY hash(inference_id, row), time LIMIT {most}"
            ).fetchall()
        instances = [capture.instance(values, self.spec) for values in found]
        return [{name: instance[name] for name in features} for instance in instances]

    def _require(self, features: Sequence[str]) -> None:
        if lacking := [name for name in features if name not in self.spec.features]:
            raise UnexplainedError(f"the spec no longer has what the package was trained on: {', '.join(lacking)}")

    def _asking(self, package: str, training: Attribution, variant: Variant) -> Ask:
        """Raises `UnexplainedError` where something else answers than `package`, now or while it is asked."""
        mode = self.spec.serve.mode
        if mode not in {Mode.REALTIME, Mode.SERVERLESS}:
            raise UnexplainedError(f"an endpoint of mode {mode.value} does not answer at once")
        state = self.endpoint.state()
        if state is None:
            raise UnexplainedError("there is no endpoint")
        if state.changing:
            raise UnexplainedError(
                f"the endpoint is {state.status}, and should change without being asked this as well"
            )
        if (answers := state.packages.get(variant)) != package:
            raise UnexplainedError(f"the endpoint's {variant} is {answers} and not {package}")
        target: Variant | None = variant if CHALLENGER in state.packages else None
        deadline = time.monotonic() + LONGEST

        def ask(rows: Sequence[Row]) -> list[Answer]:
            answers: list[Answer] = []
            while len(answers) < len(rows):
                if time.monotonic() > deadline:
                    raise UnexplainedError(f"the endpoint took more than {LONGEST:.0f} seconds to answer")
                part = rows[len(answers) : len(answers) + REQUEST_ROWS]
                answers += self._ask(part, training.bundle, target)
            return answers

        return ask

    def _ask(self, rows: Sequence[Row], bundle: str, target: Variant | None) -> list[Any]:
        body = json.dumps({"instances": rows}).encode()
        try:
            answered = self.predictor.predict(body, inference_id=f"{capture.PROBE}{uuid.uuid4()}", variant=target)
        except CannotPredictError as error:
            raise UnexplainedError(f"the endpoint was asked and did not answer: {error.detail}") from error
        if answered.bundle not in {None, bundle}:
            raise UnexplainedError("the endpoint answers by another bundle than the one that was explained at training")
        if len(answered.predictions) != len(rows):
            raise UnexplainedError(f"the endpoint answered {len(answered.predictions)} of {len(rows)} rows")
        return answered.predictions
