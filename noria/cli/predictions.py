"""`noria predict`: a file of rows is answered beside its upload; single rows by the endpoint, at once."""

import csv
import difflib
import json
import math
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from noria import batch
from noria.aws.predictor import CannotPredictError, NothingLiveError, Predictor
from noria.aws.storage import Storage
from noria.cli.output import Refused, told
from noria.cli.state import Deployed
from noria.deployment import turned_off, under_way, wanted
from noria.names import key
from noria.serve import Mode
from noria.spec import Feature, FeatureType, ModelSpec


class Sent(BaseModel):
    """A file that is on its way, and where its answers come to lie."""

    model: str
    file: str
    uri: str
    result: str
    waits: str | None

    @property
    def text(self) -> str:
        return told(
            f"Uploaded to {self.uri}",
            f"Follow it with: noria events {self.model}",
            f"The result, once it is there: aws s3 cp {self.result} .",
            self.waits,
        )


class Answers(BaseModel):
    """What the endpoint answered, in the order of the rows; `inference_id` is what captures, labels and traces name."""

    model: str
    variant: str
    bundle: str | None
    inference_id: str
    milliseconds: int
    predictions: list[dict[str, Any]]

    @property
    def text(self) -> str:
        rows = [f"  row {row}: {_told(answer)}" for row, answer in enumerate(self.predictions)]
        return "\n".join(
            [
                f"The {self.variant} of {self.model} answered in {self.milliseconds} ms:",
                *rows,
                f"Once it is captured, in a minute or two: noria explain {self.model} {self.inference_id}",
            ]
        )


def _told(answer: dict[str, Any]) -> str:
    shares = {"score": answer["score"]} if "score" in answer else answer.get("scores", {})
    told = ", ".join(f"{name} {share:.4f}" for name, share in shares.items())
    return f"{answer['prediction']} ({told})" if told else str(answer["prediction"])


def of_file(deployed: Deployed, model: str, file: Path) -> Sent:
    """Have a transform job answer a file of any size. Raises `Refused`."""
    if batch.format_of(file.name) is None:
        raise _no_format(file)
    storage = Storage(bucket=deployed.parameter("data-bucket"))
    target = key(deployed.require(model), "batch", file.name)
    storage.upload(file, target)
    uri = storage.uri(target)
    waits = deployed.waits(model, "it is answered")
    return Sent(model=model, file=str(file), uri=uri, result=f"{uri}{batch.RESULT}", waits=waits)


def at_once(deployed: Deployed, spec: ModelSpec, rows: Sequence[dict[str, Any]]) -> Answers:
    """Have the endpoint answer rows in one request. Raises `Refused`."""
    model, mode = deployed.require(spec.model), spec.serve.mode
    if mode not in {Mode.REALTIME, Mode.SERVERLESS}:
        raise Refused(f"{model} is in mode {mode.value}, which answers no request at once: noria predict {model} FILE.")
    inference_id, began = uuid.uuid4().hex, time.perf_counter()
    body = json.dumps({"instances": rows}).encode()
    try:
        answered = Predictor(endpoint=deployed.names.model(model)).predict(
            body, inference_id=inference_id, variant=None
        )
    except CannotPredictError as problem:
        away = _away(deployed, spec, datetime.now(UTC)) if isinstance(problem, NothingLiveError) else None
        answer = f"No answer ({problem.status}): {problem.detail}."
        raise Refused(told(answer, *_wrong(problem), away)) from problem
    return Answers(
        model=model,
        variant=answered.variant,
        bundle=answered.bundle,
        inference_id=inference_id,
        milliseconds=round(1000 * (time.perf_counter() - began)),
        predictions=answered.predictions,
    )


def typed(texts: Sequence[str], spec: ModelSpec) -> list[dict[str, Any]]:
    """Rows that a person typed. Raises `Refused` where they name what is no feature: it says what was meant."""
    rows = [_object(text, f"--row {text}") for text in texts]
    if unknown := [_unknown(name, row, spec) for row in rows for name in row if name not in spec.features]:
        raise Refused("\n".join([*unknown, f"Features of {spec.model}: {', '.join(spec.features)}."]))
    return rows


def _unknown(name: str, row: dict[str, Any], spec: ModelSpec) -> str:
    near = difflib.get_close_matches(name, [other for other in spec.features if other not in row], n=1)
    remedy = f"write {near[0]}" if near else "leave it out"
    return f"--row: {name} = {json.dumps(row[name], ensure_ascii=False)}: {spec.model} has no such feature; {remedy}."


def first_of(file: Path, most: int, spec: ModelSpec) -> list[dict[str, Any]]:
    """The first rows of a file: of their columns the model's features. What is wrong with them, the model says.

    Raises `Refused` where the file cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(islice(_rows(file, lines, spec), most))
    except (csv.Error, UnicodeDecodeError) as error:
        raise Refused(f"{file.name} cannot be read ({error}): export it again, as UTF-8 text.") from error
    if not rows:
        raise Refused(f"{file.name} has no rows.")
    return rows


def _rows(file: Path, lines: Iterable[str], spec: ModelSpec) -> Iterator[dict[str, Any]]:
    kind = batch.format_of(file.name)
    if kind == "csv":
        for cells in csv.DictReader(lines, strict=True):
            yield {name: _value(cells[name], feature) for name, feature in spec.features.items() if name in cells}
    elif kind == "jsonl":
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = _object(line, f"{file.name}, line {number}")
                yield {name: row[name] for name in spec.features if name in row}
    else:
        raise _no_format(file)


def _no_format(file: Path) -> Refused:
    return Refused(f"{file.name} is neither .csv nor .jsonl: export it as one of them.")


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{where} is not JSON ({error}): write an object of features and values.") from error
    if not isinstance(row, dict):
        raise Refused(f"{where} is not an object of features and values.")
    return row


def _value(cell: str | None, feature: Feature) -> str | float | None:
    """A cell as JSON; text that is no number stays text, and the model says so."""
    if not cell or feature.type is FeatureType.CATEGORY:
        return cell or None
    try:
        number = float(cell)
    except ValueError:
        return cell
    if not math.isfinite(number):
        return cell
    return int(number) if number.is_integer() else number


def _away(deployed: Deployed, spec: ModelSpec, now: datetime) -> str:
    """Why there is no endpoint, and what to do."""
    model, hours, entries = spec.model, spec.serve.hours, deployed.ledger.entries(spec.model)
    then = wanted(entries)
    if then is None or then.package is None:
        return f"Approve a version: noria packages {model}"
    if hours and not hours.include(now):
        back = hours.local(hours.next_start(now))
        return f"{model} answers on {hours}: it is back on {back}, or change serve.hours in its YAML and deploy."
    if turned_off(entries):
        why = f"its hours, {hours}, have begun" if hours else "it has no hours any more"
        return f"It is coming back, which takes minutes, for {why}: noria status {model}"
    moving = under_way(entries) or "The endpoint is gone, though nobody asked for that"
    return f"{moving[0].upper()}{moving[1:]}: noria status {model}"


def _wrong(problem: CannotPredictError) -> list[str]:
    return [
        "  " + " ".join([*(f"{name} {wrong[name]}:" for name in ("row", "field") if name in wrong), wrong["problem"]])
        for wrong in problem.problems
        if isinstance(wrong, dict) and "problem" in wrong
    ]
