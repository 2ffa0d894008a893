"""`noria logs`: all that an upload, an event or a person's command led to, in the order in which it happened."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import groupby

from botocore.exceptions import ClientError

from noria.aws.logs import Logs, Place
from noria.aws.pipelines import Pipelines, Step
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.cli.traces import Tracer
from noria.events import CORRELATION
from noria.ledger import Entry, Kind, correlation_of
from noria.logs import Line, correlation_in, silent, told, without_toolkit

DAY = timedelta(days=1)
SHORTEST = 6
"""Characters of a word that is looked for in every line."""

_BEFORE = timedelta(minutes=15)
"""The first entry is written some time after what it tells of was heard."""

_JOBS = {"training-job": "Training", "processing-job": "Processing"}


@dataclass(frozen=True)
class Follower:
    """Follows what belongs together in an environment. `since` None: since the ledger knows of it, or for a day."""

    deployed: Deployed
    since: datetime | None
    now: datetime

    def follow(self, asked: str) -> list[Line]:
        """Lines and entries of what `asked` names. Raises `Refused` where nothing does."""
        correlation, naming = self._in_ledger(asked), list[Line]()
        if correlation is None:
            if not re.fullmatch(CORRELATION, asked):
                raise Refused(f"{asked!r} is no id: it has a character that no id has.")
            if len(asked) < SHORTEST:
                raise Refused(f"{asked!r} is in many lines that have nothing to do with each other: give the whole id.")
            naming = self._logs.lines(self._everywhere, since=self.since or self.now - DAY, word=asked)
            correlation = correlation_in(naming, asked) or self._of_prediction(asked)
        if correlation is None and not naming:
            since = self.since or self.now - DAY
            raise Refused(
                f"No entry of the ledger, no captured request, and no log line since {since:%Y-%m-%d %H:%M} UTC names "
                f"{asked}. Look further back with --since. Understood: a correlation or event, a package (its ARN, or "
                "MODEL/VERSION), an execution, a deployment, an upload's key or file name, a dataset's hash, an "
                "inference id."
            )
        entries = [entry for entry in self._entries if correlation and entry.correlation == correlation]
        others = [line for line in naming if correlation is None or line.correlation != correlation]
        return told([*others, *(self._lines(correlation, entries) if correlation else ())], entries)

    def _in_ledger(self, asked: str) -> str | None:
        """Whose effect something is that the ledger names: a correlation, a package, an execution, an upload's key."""
        if upload := self._upload(asked):
            return upload.correlation
        named = self.deployed.package_arn(asked) if re.fullmatch(r"[^/:]+/\d+", asked) else asked
        if any(entry.correlation == named for entry in self._entries):
            return named
        return correlation_of(self._entries, named)

    def _upload(self, asked: str) -> Entry | None:
        """What became of the newest upload of a key, or of the only key that ends with a file's name."""
        name = re.sub("^s3://[^/]+/", "", asked)
        found = {str(e.details["key"]): e for e in sorted(self._entries, key=lambda e: e.at) if "key" in e.details}
        keys = [key for key in found if key == name] or sorted(key for key in found if key.endswith(f"/{name}"))
        if len(keys) > 1:
            raise Refused(f"{asked} was uploaded as {', '.join(keys)}: ask for one of these.")
        return found[keys[0]] if keys else None

    def _of_prediction(self, asked: str) -> str | None:
        """Whose effect the version is that answered a captured request; None where none has this inference id."""
        days = math.ceil((self.now - self.since) / DAY) if self.since else 1
        try:
            steps = Tracer(self.deployed, None, max(1, days), False).trace(asked).steps
        except Refused:
            return None
        executions = [str(step.facts.get("execution")) for step in steps if step.step == "training"]
        return correlation_of(self._entries, executions[0]) if executions else None

    def _lines(self, correlation: str, entries: Sequence[Entry]) -> list[Line]:
        """What functions and jobs logged; of an invocation that ended without a word, what Lambda says of it."""
        since = self.since or min((entry.at for entry in entries), default=self.now - DAY) - _BEFORE
        lines = self._logs.lines(self._functions, since=since, word=correlation)
        for where, request in silent(lines):
            place = next(place for place in self._functions if place.name == where)
            lines += [line for line in self._logs.lines([place], since=since, word=request) if line.request is None]
        of_jobs = groupby(self._logs.lines(self._jobs(entries), since=since), key=lambda line: line.where)
        return [*lines, *(line for _, of_job in of_jobs for line in without_toolkit(list(of_job)))]

    def _jobs(self, entries: Sequence[Entry]) -> Iterator[Place]:
        for entry in entries:
            if entry.kind is Kind.TRAINING_STARTED:
                execution = str(entry.details["execution"])
                for step in self._steps(execution):
                    kind, _, job = str(step.job).rpartition(":")[2].partition("/")
                    yield Place.of_job(_JOBS[kind], job, name=f"{step.name} {execution.rpartition('/')[2]}")
            elif entry.kind is Kind.BATCH_STARTED:
                job = str(entry.details["job"])
                yield Place.of_job("Transform", job, name=f"Transform {job.rpartition('-')[2]}")

    def _steps(self, execution: str) -> list[Step]:
        """Those that ran a job; none of an execution whose pipeline was removed."""
        try:
            return [step for step in Pipelines().steps(execution) if step.job]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFound":
                raise
            return []

    @cached_property
    def _logs(self) -> Logs:
        return Logs()

    @cached_property
    def _entries(self) -> list[Entry]:
        return [entry for model in self.deployed.models for entry in self.deployed.ledger.entries(model)]

    @cached_property
    def _functions(self) -> list[Place]:
        prefix = f"/aws/lambda/{self.deployed.names.prefix}-"
        return [Place(group=group, name=group.removeprefix(prefix)) for group in self._logs.groups(prefix)]

    @property
    def _everywhere(self) -> list[Place]:
        """Functions, and the endpoints that may log the inference ids of requests."""
        names = [self.deployed.names.model(model) for model in self.deployed.models]
        endpoints = [Place(group=f"/aws/sagemaker/Endpoints/{name}", name=f"endpoint {name}") for name in names]
        return [*self._functions, *endpoints]
