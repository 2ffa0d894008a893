"""What `noria slo` shows: what each model promises, how well it kept that, and what is left of the budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel

from noria.aws.endpoints import CHALLENGER, CHAMPION
from noria.aws.traffic import TrafficMetrics
from noria.cli.state import Deployed
from noria.objectives import Kept, Objective, Served, by_ledger, by_requests
from noria.spec import ModelSpec


class KeptRow(BaseModel):
    """A row as people read it; `kept` are the numbers."""

    model: str
    objective: Objective
    promised: str
    happened: str
    kept: str
    budget_left: str
    burns: str
    worst: str | None
    numbers: Kept

    @classmethod
    def of(cls, kept: Kept) -> "KeptRow":
        none = "·"
        return cls(
            model=kept.model,
            objective=kept.objective,
            promised=kept.promised,
            happened=f"{kept.events:,}" + (f", {kept.bad:,} bad" if kept.bad else ""),
            kept=none if kept.share is None else _percent(kept.share),
            budget_left=none if kept.left is None else "used up" if kept.exhausted else _percent(kept.left),
            burns=none if kept.burn is None else f"{kept.burn:.1f}×",
            worst=kept.worst,
            numbers=kept,
        )


def left_out_of(rows: Sequence[KeptRow]) -> list[str]:
    """What is not counted, in words."""
    own = {row.model: row.numbers.own for row in rows if row.numbers.own}
    if not own:
        return []
    told = ", ".join(f"{many:,} to {model}" for model, many in own.items())
    return [f"Left out are the requests of Noria's own, which CloudWatch and the alarms count too: {told}."]


def _percent(share: float) -> str:
    """Never as more than it is: 99.996 % kept is not 100 %."""
    return f"{int(share * 10_000) / 100:g} %"


@dataclass(frozen=True)
class ServiceLevels:
    deployed: Deployed

    def of(self, spec: ModelSpec, *, now: datetime) -> Iterator[Kept]:
        asked = spec.objectives
        if not asked.promised:
            return
        limit = asked.latency_p95_ms
        if asked.of_requests:
            traffic = TrafficMetrics(endpoint=self.deployed.names.model(spec.model))
            spans = [{"since": now - length, "until": now} for length in (asked.period, timedelta(hours=1))]
            own, lately = (traffic.own(**span, within_ms=limit) for span in spans)
            period, hour = (
                _sum(traffic.served(variant, **span, within_ms=limit) for variant in (CHAMPION, CHALLENGER))
                for span in spans
            )
            clients = period.without(own), hour.without(lately)
            yield from by_requests(spec.model, asked, *clients, own=own.requests)
        yield from by_ledger(spec.model, asked, self.deployed.ledger.entries(spec.model), now=now)


def _sum(parts: Iterator[Served]) -> Served:
    """Of what clients are answered by: a shadow's answers nobody hears."""
    told = list(parts)
    slow = [part.slow for part in told if part.slow is not None]
    return Served(
        requests=sum(part.requests for part in told),
        failed=sum(part.failed for part in told),
        slow=sum(slow) if slow else None,
    )
