"""Feature flags as a front door reads them from AppConfig, request by request."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from noria.flags import Flags

if TYPE_CHECKING:
    from mypy_boto3_appconfigdata import AppConfigDataClient

POLL_SECONDS = 30
"""How old flags may be; AppConfig allows 15 at least, and answers with what to keep to."""

QUICK = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})
"""A request waits for a poll: then flags that are a little old are better than late ones."""


def _client() -> "AppConfigDataClient":
    return boto3.client("appconfigdata", config=QUICK)


@dataclass(kw_only=True)
class LatestFlags:
    """The flags as they are now, asked for no more often than AppConfig wants; the last good ones when it is down."""

    application: str
    environment: str
    profile: str
    warn: Callable[[str], None]
    client: "AppConfigDataClient" = field(default_factory=_client, repr=False)
    clock: Callable[[], float] = time.monotonic
    _flags: Flags = field(default=Flags(), init=False)
    _token: str | None = field(default=None, init=False)
    _due: float = field(default=0.0, init=False)

    def get(self) -> Flags:
        if self.clock() >= self._due:
            self._due = self.clock() + POLL_SECONDS
            try:
                self._poll()
            except (BotoCoreError, ClientError) as error:
                self._token = None  # a token is good for one call: the next poll begins a session
                self.warn(f"AppConfig did not answer, the last flags stay: {error}")
        return self._flags

    def _poll(self) -> None:
        token = self._token or self._session()
        self._token = None
        answer = self.client.get_latest_configuration(ConfigurationToken=token)
        self._token = answer["NextPollConfigurationToken"]
        self._due = self.clock() + answer["NextPollIntervalInSeconds"]
        if content := answer["Configuration"].read():  # empty: nothing has changed
            try:
                self._flags = Flags.model_validate_json(content)
            except ValidationError as error:
                self.warn(f"these flags cannot be read, the last ones stay: {error}")

    def _session(self) -> str:
        return self.client.start_configuration_session(
            ApplicationIdentifier=self.application,
            EnvironmentIdentifier=self.environment,
            ConfigurationProfileIdentifier=self.profile,
            RequiredMinimumPollIntervalInSeconds=POLL_SECONDS,
        )["InitialConfigurationToken"]
