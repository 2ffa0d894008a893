"""Why a reaction failed on an event, as its log tells."""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

_TRIES = timedelta(hours=12)
"""In which a message is tried as often as it may be."""

_LINES = 100
_QUOTABLE = re.compile(r"[A-Za-z0-9._:/#@=+-]+")


@dataclass(frozen=True, kw_only=True)
class Failures:
    client: "CloudWatchLogsClient" = field(default_factory=lambda: boto3.client("logs"), repr=False)

    def last_line(self, function: str, event: str, *, since: datetime) -> str | None:
        """The last line of the error that `function` met with the event of this id; None where the log has none.

        A function that was stopped, by its time or memory, has said nothing of its end.
        """
        if not _QUOTABLE.fullmatch(event):
            return None
        try:
            found = self.client.filter_log_events(
                logGroupName=f"/aws/lambda/{function}",
                filterPattern=f'"{event}"',
                startTime=round(since.timestamp() * 1000),
                endTime=round((since + _TRIES).timestamp() * 1000),
                limit=_LINES,
            )["events"]
        except self.client.exceptions.ResourceNotFoundException:
            return None
        errors = [error for line in found if (error := _error(line.get("message", ""), event))]
        return errors[-1] if errors else None


def _error(line: str, event: str) -> str | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("level") != "ERROR" or said.get("event_id") != event:
        return None
    lines = str(said.get("exception") or said.get("message")).strip().splitlines()
    return lines[-1] if lines else None
