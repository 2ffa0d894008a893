"""What a function is told by its environment variables, checked once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from noria.alarms import Severity
from noria.names import Names, Part
from noria.spec import ModelSpec


class Variables(BaseModel):
    """`NORIA_*` variables of every function; one that needs more inherits. A wrong one fails at once and is named."""

    model_config = ConfigDict(frozen=True)

    env: str = Field(min_length=1)
    models_dir: Path = Path("/opt/models")

    @classmethod
    def from_os(cls) -> Self:
        return cls.model_validate(
            {name: value for name in cls.model_fields if (value := os.environ.get(f"NORIA_{name.upper()}")) is not None}
        )

    @property
    def names(self) -> Names:
        return Names(env=self.env)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self.models_dir.glob("*.json")))

    def spec(self, model: str) -> ModelSpec | None:
        """The model's spec, None when no such model is deployed here."""
        if model not in self.models:
            return None
        return ModelSpec.model_validate_json((self.models_dir / f"{model}.json").read_bytes())

    def required_spec(self, model: str) -> ModelSpec:
        spec = self.spec(model)
        if spec is None:
            raise LookupError(f"no model {model!r} in {self.models_dir}: known are {', '.join(self.models) or 'none'}")
        return spec

    def model_of_stack(self, stack: str, part: Part) -> str | None:
        """The model whose `part` stack this is; None for any other stack."""
        return next((model for model in self.models if self.names.stack(model, part) == stack), None)


Topic = Annotated[str, Field(pattern=r"^arn:[^:]+:sns:[^:]+:\d{12}:.+$")]


class Environment(Variables):
    """What every reaction is told besides."""

    data_bucket: str = Field(min_length=1)
    event_bus: str = Field(min_length=1)
    pages_topic: Topic
    notices_topic: Topic
    ledger_table: str = Field(min_length=1)

    @property
    def topics(self) -> Mapping[Severity, str]:
        """Where people are told of what is so severe."""
        return {Severity.CRITICAL: self.pages_topic, Severity.WARNING: self.notices_topic}

    @property
    def region(self) -> str:
        return self.pages_topic.split(":")[3]

    @property
    def account(self) -> str:
        return self.pages_topic.split(":")[4]


class LedgerEnvironment(Environment):
    """Of a reaction that has to do with the locked copies of the ledger's entries."""

    ledger_bucket: str = Field(min_length=1)


class BookingEnvironment(Environment):
    """Of a reaction that books schedules: their group and role, and the queues of the reaction that they start."""

    schedule_group: str
    schedule_role_arn: str
    queue_arn: str
    dead_letters_arn: str
