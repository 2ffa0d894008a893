"""Queries on Athena, run to their end.

https://docs.aws.amazon.com/athena/latest/APIReference/API_StartQueryExecution.html
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import boto3

from noria.names import Names
from noria.profile import Edges, Profile
from noria.spec import ModelSpec

if TYPE_CHECKING:
    from mypy_boto3_athena import AthenaClient

    from noria.athena import Row

PATIENCE = timedelta(minutes=8)
"""How long the queries of one profile may take: what is left of the function's 15 minutes is for all the rest."""

_SHORTEST, _LONGEST = 0.2, 5.0  # seconds between two looks


class QueryError(Exception):
    """A query that failed or took too long; says which."""


@dataclass(frozen=True, kw_only=True)
class Athena:
    """Captured requests of one variant of a model, in its Glue table; `patience` is for all queries of a profile."""

    names: Names
    spec: ModelSpec
    variant: str
    late: timedelta
    patience: timedelta = PATIENCE
    client: "AthenaClient" = field(default_factory=lambda: boto3.client("athena"), repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def profile(self, since: datetime, until: datetime, cut: Edges) -> Profile:
        """As `noria.profile.profile` of the same requests. Raises `QueryError`, and ValueError of too long a query."""
        # It brings a translator of SQL, which takes longer to import than much else, and which few windows need.
        from noria.athena import CapturedScan, Rows  # noqa: PLC0415

        rows = Rows(
            database=self.names.database,
            table=self.names.table(self.spec.model),
            variant=self.variant,
            since=since,
            until=until,
            late=self.late,
        )
        end = self.clock() + self.patience.total_seconds()
        scan = CapturedScan(rows, self.spec, cut)
        # All at once: each reads the same files, and none waits for another.
        asked = [self._start(sql) for sql in scan.queries]
        found = scan.read([row for query in asked for row in self._end(query, end)])
        naming = [self._start(sql) for sql in scan.naming(found)]
        return scan.named(found, [row for query in naming for row in self._end(query, end)])

    def _start(self, sql: str) -> str:
        """Start a query, and return its id. The workgroup says where results go, and how much may be read."""
        return self.client.start_query_execution(
            QueryString=sql,
            QueryExecutionContext={"Database": self.names.database},
            WorkGroup=self.names.workgroup(self.spec.model),
        )["QueryExecutionId"]

    def _end(self, query: str, end: float) -> "list[Row]":
        """The rows that answer a query, when it has succeeded."""
        wait = _SHORTEST
        while True:
            status = self.client.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]
            match status["State"]:
                case "SUCCEEDED":
                    return list(self._rows(query))
                case "FAILED" | "CANCELLED":
                    reason = status.get("StateChangeReason", "Athena gives no reason")
                    raise QueryError(f"query {query} on Athena {status['State'].lower()}: {reason}")
            if self.clock() + wait > end:
                self.client.stop_query_execution(QueryExecutionId=query)
                raise QueryError(
                    f"query {query} on Athena was stopped: all took longer than {self.patience}; a shorter "
                    "monitor.every or a smaller serve.capture gives it less to read"
                )
            self.sleep(wait)
            wait = min(_LONGEST, wait * 1.5)

    def _rows(self, query: str) -> "Iterator[Row]":
        """Rows as texts, None for NULL; the first row of the first page has the names of the columns."""
        names = True
        for page in self.client.get_paginator("get_query_results").paginate(QueryExecutionId=query):
            for row in page["ResultSet"]["Rows"][1 if names else 0 :]:
                yield [value.get("VarCharValue") for value in row["Data"]]
            names = False
