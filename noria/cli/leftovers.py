"""What is left of an environment or a model, with what it costs to leave it there."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from noria.aws.leftovers import Left, Leftovers, Unseen
from noria.prices import NoPrice, Prices, prices


class LeftRow(BaseModel):
    """`usd` a month at list prices; None where a price is missing, which `note` then says."""

    type: str
    name: str
    usd: float | None
    note: str


class Scan(BaseModel):
    """`unseen` are kinds that could not be looked for, and why."""

    left: list[LeftRow]
    usd: float
    unseen: list[str]

    def sentences(self) -> list[str]:
        if not self.left and not self.unseen:
            return ["A scan by name and by tag found nothing of it in the account."]
        found = [_sentence(row) for row in self.left]
        total = [f"Leaving it there costs {self.usd:,.2f} USD a month, at list prices."] if self.left else []
        return [*found, *(f"could not look for {each}" for each in self.unseen), *total]


def scan(leftovers: Leftovers, *, region: str) -> Scan:
    left, unseen = leftovers.found()
    try:
        known = prices(region)
    except NoPrice as problem:
        return _scan([_row(each, None, str(problem)) for each in left], unseen)
    return _scan([_row(each, known, "") for each in left], unseen)


def _scan(rows: Sequence[LeftRow], unseen: Iterable[Unseen]) -> Scan:
    return Scan(
        left=list(rows),
        usd=sum(row.usd or 0.0 for row in rows),
        unseen=[f"{each.type}: {each.because}" for each in unseen],
    )


def _row(left: Left, known: Prices | None, problem: str) -> LeftRow:
    notes = [left.note] if left.note else []
    usd: float | None = None
    try:
        usd = known.cost(left.paid) if known else None if left.paid else 0.0
    except NoPrice as missing:
        notes.append(str(missing))
    if known is None and left.paid:
        notes.append(problem)
    return LeftRow(type=left.type, name=left.name, usd=usd, note="; ".join(notes))


def _sentence(row: LeftRow) -> str:
    cost = "price unknown" if row.usd is None else f"{row.usd:,.2f} USD a month" if row.usd else "free"
    return f"{row.type} {row.name}: {cost}" + (f" ({row.note})" if row.note else "")
