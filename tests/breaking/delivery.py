"""A reaction in a process of its own, as Lambda runs it: called with a message, and ended whenever somebody likes."""

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3

from local.cloud import ACCOUNT, REGION
from noria import sql
from noria.aws.retries import patiently
from tests.integration.reactions.place import Context, Place

ROLE = "everything"
SERVICES = ("s3", "dynamodb", "events", "sns", "sqs", "sagemaker", "cloudformation", "cloudwatch", "scheduler", "logs")
REGISTRY_ENV, REGISTRY_BUCKET = "dev", "noria-dev-data"  # of which import_package is told


_CANNOT_BE_CLOSED: list[Any] = []


class Ending(StrEnum):
    DONE = "done"
    FAILED = "failed"
    KILLED = "killed"


@dataclass
class Lambda:
    """Calls handlers, each in a new process with the credentials of a session of the function's name."""

    place: Place
    log: Path
    _sessions: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read once what each new process would read anew (tests/conftest.py)."""
        for service in SERVICES:
            self.place.client(service)

    def function(self, reaction: str) -> str:
        return self.place.names.queue(reaction.replace("_", "-"))

    def call(self, reaction: str, message: dict[str, Any], *, model: str, later: timedelta = timedelta(0)) -> Ending:
        """One invocation; `later` by the function's clock."""
        return self.wait(self.begin(reaction, message, model=model, later=later))

    def begin(self, reaction: str, message: dict[str, Any], *, model: str, later: timedelta = timedelta(0)) -> int:
        """Begin an invocation; returns its process."""
        handler = importlib.import_module(f"lambdas.{reaction}.handler").handler
        environment = self._environment(reaction, model)
        process = os.fork()
        if process == 0:
            self._be(handler, message, environment, later)
        return process

    def wait(self, process: int) -> Ending:
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            return Ending.KILLED
        return Ending.FAILED if os.WEXITSTATUS(status) else Ending.DONE

    def _be(
        self,
        handler: Callable[[dict[str, Any], Any], Any],
        message: dict[str, Any],
        environment: Mapping[str, str],
        later: timedelta,
    ) -> None:
        """What the new process does; it never returns."""
        code = 1
        try:
            out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ.update(environment)
            patiently()
            _open_databases_anew()
            _set_clock(later)
            handler(message, Context())
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, this process must end here
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _environment(self, reaction: str, model: str) -> Mapping[str, str]:
        queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.function(reaction)}"
        return {
            **self._credentials(reaction),
            "NORIA_QUEUE_ARN": queue,
            "NORIA_DEAD_LETTERS_ARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.place.names.dead_letters}",
            "NORIA_MODELS_DIR": str(self._only(model)),
            "NORIA_REGISTRY_ENV": REGISTRY_ENV,
            "NORIA_REGISTRY_ACCOUNT": ACCOUNT,
            "NORIA_REGISTRY_BUCKET": REGISTRY_BUCKET,
            "NORIA_KEY_ARN": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000",
        }

    def _credentials(self, reaction: str) -> Mapping[str, str]:
        if reaction not in self._sessions:
            given = boto3.client("sts").assume_role(
                RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{ROLE}", RoleSessionName=self.function(reaction)
            )["Credentials"]
            self._sessions[reaction] = {
                "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
                "AWS_SESSION_TOKEN": given["SessionToken"],
            }
        return self._sessions[reaction]

    def _only(self, model: str) -> Path:
        """A folder of specs in which this model is the only one: what looks at all sees no other test's."""
        folder = self.place.models / "only" / model
        folder.mkdir(parents=True, exist_ok=True)
        spec = folder / f"{model}.json"
        if not spec.exists():
            spec.symlink_to(self.place.models / f"{model}.json")
        return folder


def _open_databases_anew() -> None:
    """A database that is kept has threads, which a fork does not copy; nor may what has lost them be closed."""
    before, sql._kept = sql._kept, lru_cache(maxsize=2)(sql._opened)
    _CANNOT_BE_CLOSED.append(before)


def _set_clock(later: timedelta) -> None:
    """Let Noria's own code see a later time. Signatures keep the real one, or AWS would refuse them."""

    class Moment(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

    class Clock(datetime, metaclass=Moment):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + later

    for name, module in list(sys.modules.items()):
        if name.startswith(("noria.", "lambdas.")) and getattr(module, "datetime", None) is datetime:
            module.datetime = Clock  # type: ignore[attr-defined]


def queued(event: dict[str, Any]) -> dict[str, Any]:
    """A message as Lambda hands it over from a queue. No receipt: nobody puts it back but the queue itself."""
    return {"Records": [{"messageId": "1", "body": json.dumps(event)}]}
