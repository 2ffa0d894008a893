"""Where everything is: the names that templates, functions, the command and people share.

| what                                        | name                             |
|---------------------------------------------|----------------------------------|
| endpoint, model package group, pipeline     | `noria-<env>-<model>`            |
| stacks of a model                           | `noria-<env>-<model>-<part>`     |
| buckets, event bus, topics, ledger          | SSM parameter `/noria/<env>/…`   |
| objects of a model                          | `<model>/<area>/…` in the bucket |
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

Part = Literal["training", "serving", "monitoring", "front-door"]
Area = Literal[
    "incoming",
    "datasets",
    "quarantine",
    "labels",
    "labelled",
    "captured",
    "reports",
    "baselines",
    "trainings",
    "runs",
    "checkpoints",
    "batch",
    "transforms",
    "async",
    "async-results",
    "async-failures",
    "queries",
    "tracking",
    "held",
]

Parameter = Literal["data-bucket", "event-bus", "pages-topic", "notices-topic", "ledger-table", "ledger-bucket"]

EVENT_SOURCE = "noria"
METRIC_NAMESPACE = "Noria"
SERVICE = "noria"
"""The value of the dimension `service` that Powertools adds to every count in a log line."""
PROMOTION = "promotion"
"""The rule that tells other accounts what was approved here: it is no reaction, and has no queue."""

OUTSIDE_HOURS = "OutsideHours"
"""Metric of a front door's requests that found no endpoint because the model has hours."""
OWN_LATENCY, OWN_FAILURES = "OwnRequestLatency", "OwnRequestFailures"
"""Metrics of the requests that Noria itself sends to endpoints: microseconds, and 1 where one was answered with 5XX."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names of one environment.

    >>> Names(env="local").model("flight-delay")
    'noria-local-flight-delay'
    """

    env: str

    @property
    def prefix(self) -> str:
        return f"noria-{self.env}"

    def model(self, model: str) -> str:
        """Endpoint, model package group and pipeline of `model` all have this name."""
        return f"{self.prefix}-{model}"

    def model_of(self, name: str) -> str | None:
        """The model whose endpoint, group or pipeline is `name`; None when it is not this environment's."""
        return self._after_prefix(name)

    def _after_prefix(self, name: str) -> str | None:
        start = f"{self.prefix}-"
        return name.removeprefix(start) if name.startswith(start) and len(name) > len(start) else None

    def stack(self, model: str, part: Part) -> str:
        return f"{self.model(model)}-{part}"

    def environment_stack(self, part: Literal["foundation", "network", "reactions", "roles"]) -> str:
        return f"{self.prefix}-{part}"

    def parameter(self, name: Parameter) -> str:
        return f"/noria/{self.env}/{name}"

    def approvals(self, model: str) -> str:
        """The parameter that says where versions of a model are approved; only those in mode strict have one."""
        return f"/noria/{self.env}/approvals/{model}"

    @property
    def database(self) -> str:
        """The Glue database of captured requests. Athena takes letters, digits and underscores.

        >>> Names(env="local").database
        'noria_local'
        """
        return self.prefix.replace("-", "_")

    def table(self, model: str) -> str:
        """The Glue table of a model's captured requests; a name of a model has no underscores, so it stays its own."""
        return model.replace("-", "_")

    def workgroup(self, model: str) -> str:
        """Athena's workgroup for a model's queries."""
        return self.model(model)

    def queue(self, reaction: str) -> str:
        """The queue in front of a reaction, for example `validate-upload`."""
        return f"{self.prefix}-{reaction}"

    @property
    def dead_letters(self) -> str:
        """The queue of what no reaction could handle, and the alarm on it."""
        return f"{self.prefix}-dead-letters"

    def reaction_of(self, name: str) -> str | None:
        """What a queue, function or rule called `name` is of; None when it is not this environment's."""
        return self._after_prefix(name)

    def function(self, reaction: str) -> str:
        return f"{self.prefix}-{reaction}"

    def topic(self, model: str, area: Area) -> str:
        """Tells of each object in `area` that SageMaker writes: `async-results`, `async-failures`."""
        return f"{self.model(model)}-{area}"

    def challenger_alarms(self, model: str) -> str:
        """What the names of the alarms begin with that watch a challenger."""
        return f"{self.model(model)}-challenger-"

    def monitor_alarm(self, model: str, monitor: str) -> str:
        """The alarm of one of `noria.monitors`, for example `drift`."""
        return f"{self.model(model)}-{monitor}"


@dataclass(frozen=True, kw_only=True)
class ObjectKey:
    """A key in the data bucket: `<model>/<area>/<rest>`."""

    model: str
    area: str
    rest: str

    @classmethod
    def parse(cls, key: str) -> Self:
        model, _, tail = key.partition("/")
        area, _, rest = tail.partition("/")
        if not (model and area and rest):
            raise ValueError(f"object key {key!r} is not of the form <model>/<area>/<name>")
        return cls(model=model, area=area, rest=rest)

    @property
    def filename(self) -> str:
        return self.rest.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return f"{self.model}/{self.area}/{self.rest}"


def key(model: str, area: Area, rest: str) -> str:
    return f"{model}/{area}/{rest}"


def version(package: str | None) -> str:
    """A model package's ARN as people say it: `version 3`; `nothing` when there is none."""
    return f"version {package.rsplit('/', 1)[-1]}" if package else "nothing"


def dimension(value: str) -> str:
    """A column's name as the value of a metric's dimension: CloudWatch takes printable ASCII, the CDK 255 characters.

    >>> dimension("größe")
    'gr\\\\xf6\\\\xdfe'
    """
    return "".join(c if c.isprintable() else " " for c in value.encode("ascii", "backslashreplace").decode())[:255]


def slug(column: str) -> str:
    """A column's name as part of an alarm's: small letters, digits, hyphens; of other letters too (RFC 3492).

    >>> slug("Zip Code")
    'zip-code'
    """
    plain = column if column.isascii() else column.encode("punycode").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def mixed_up(alarms: Mapping[str, Sequence[str]], names: Names) -> Iterator[str]:
    """Where what is one model's would be taken for another's; `alarms` are the names of each model's.

    CloudFormation makes up names that begin with the model's, as permissions do: no model's may begin another's.
    """
    seen: dict[str, str] = {}
    for model, own in alarms.items():
        for rival in alarms:
            if rival.startswith(f"{model}-"):
                yield (
                    f"the name of model {rival!r} begins with that of model {model!r}, whose permissions would "
                    "reach it: rename one of the models"
                )
        for alarm in own:
            other = seen.setdefault(alarm, model)
            if other != model:
                yield f"models {other!r} and {model!r} would both have an alarm {alarm}: rename one of the models"
            for rival in alarms:
                if rival != model and alarm.startswith(names.challenger_alarms(rival)):
                    yield (
                        f"alarm {alarm} of model {model!r} would be taken for one that watches a challenger of model "
                        f"{rival!r}: rename one of the models"
                    )
