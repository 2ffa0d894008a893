"""What `noria cost` answers: the synthesised cloud for a load, at list prices, and how that differs from another."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console

from noria.cli.output import Refused, show, write_json
from noria.cost import POLLERS, POLLERS_UNBOUND, Charge, Load, Occasion, Unpriced, Usage, bill, usages
from noria.prices import NoPrice, Price, Prices, prices
from noria.template import Assembly

DEFAULT_REGION = "eu-west-1"
CENT = 0.005


class CostRow(BaseModel):
    """Dollars a month of a service or a stack, by what causes them; `paid` is the total after what AWS gives free."""

    name: str
    idle: float
    live: float
    uploads: float
    trainings: float
    predictions: float
    total: float
    paid: float


class UnitRow(BaseModel):
    """What one thing costs: as listed, and after what is free if nothing else in the account used that up."""

    what: str
    listed: float
    paid: float


class Difference(BaseModel):
    """Dollars, as listed, of one thing in two clouds under the same load."""

    what: str
    before: float
    after: float
    difference: float


class Estimate(BaseModel):
    region: str
    prices_read: date
    load: Load
    services: list[CostRow]
    stacks: list[CostRow]
    units: list[UnitRow]
    notes: list[str]


class Compared(BaseModel):
    region: str
    prices_read: date
    load: Load
    before: float
    after: float
    differences: list[Difference]
    units: list[Difference]
    notes: list[str]


class Costs:
    """A cloud assembly and the prices of its region; raises `Refused` with what is missing and where to say it."""

    def __init__(
        self, out: Path, *, region: str | None, assume: Sequence[str], given: Sequence[str], load: Load
    ) -> None:
        self.assembly = _read(out)
        self.load = _assumed(load, assume)
        try:
            listed = prices(region or self.assembly.region or DEFAULT_REGION)
        except NoPrice as problem:
            raise Refused(str(problem)) from None
        self.prices = _with(listed, given)

    def estimate(self) -> Estimate:
        charges = self._charges(self.assembly, self.load)
        return Estimate(
            region=self.prices.region,
            prices_read=self.prices.read,
            load=self.load,
            services=_rows(charges, lambda charge: charge.service),
            stacks=_rows(charges, lambda charge: charge.stack),
            units=self._units(self.assembly),
            notes=self._notes(charges),
        )

    def against(self, other: Path) -> Compared:
        before, after = (self._charges(each, self.load) for each in (_read(other), self.assembly))
        units_before = {unit.what: unit.listed for unit in self._units(_read(other))}
        units_after = {unit.what: unit.listed for unit in self._units(self.assembly)}
        return Compared(
            region=self.prices.region,
            prices_read=self.prices.read,
            load=self.load,
            before=sum(charge.listed for charge in before),
            after=sum(charge.listed for charge in after),
            differences=_differences(_sums(before), _sums(after)),
            units=_differences(units_before, units_after),
            notes=self._notes(after),
        )

    def _charges(self, assembly: Assembly, load: Load) -> list[Charge]:
        return self._billed(_counted(assembly, load))

    def _billed(self, used: Iterable[Usage]) -> list[Charge]:
        try:
            return bill(used, self.prices)
        except NoPrice as problem:
            raise Refused(f"{problem}; or give it: --price NAME=USD") from None

    def _units(self, assembly: Assembly) -> list[UnitRow]:
        """Of one model each, where models differ."""
        unit = self.load.model_copy(
            update={
                "uploads": 1000,
                "trainings": 1,
                "predictions": 1_000_000,
                "live": True,
                "data_gb": 0,
                "ledger_gb": 0,
            }
        )
        used = _counted(assembly, unit)
        models = sorted({usage.model for usage in used if usage.model})
        asked: list[tuple[str, Occasion, str | None]] = [("the environment, idle, a month", Occasion.IDLE, None)]
        for model in models:
            asked += [
                (f"{model}: deployed, without an endpoint, a month", Occasion.IDLE, model),
                (f"{model}: its endpoint and monitors besides, a month", Occasion.LIVE, model),
                (f"{model}: a training", Occasion.TRAININGS, model),
                (f"{model}: 1,000 uploads", Occasion.UPLOADS, model),
                (f"{model}: 1,000,000 predictions besides", Occasion.PREDICTIONS, model),
            ]
        return [
            UnitRow(
                what=what,
                listed=sum(charge.listed for charge in charges),
                paid=sum(charge.usd for charge in charges),
            )
            for what, occasion, model in asked
            for charges in [self._billed(u for u in used if u.occasion is occasion and u.model == model)]
        ]

    def _notes(self, charges: Sequence[Charge]) -> list[str]:
        doubtful = sorted({charge.price for charge in charges if not charge.verified and charge.listed > CENT})
        doubt = f"In no source that we could read, check these: {', '.join(doubtful)}."
        return [
            *([doubt] if doubtful else []),
            *_PRICES.format(region=self.prices.region, read=self.prices.read).splitlines(),
            *_LOAD.format(load=self.load).splitlines(),
            _POLLED,
            _LEFT_OUT,
        ]


_PRICES = "List prices of {region} in US dollars, before tax, read {read}: each with its source in noria/prices.yaml."
_LOAD = """\
The load of each model, a month: {load.uploads:g} uploads of {load.upload_seconds:g} s, {load.trainings:g} trainings \
of {load.job_minutes:g} minutes a job, {load.predictions:g} requests of {load.prediction_kb:g} kB; {load.metrics} \
custom metrics while it answers. --assume NAME=NUMBER changes these and others."""
_POLLED = f"""\
A queue with a bound on concurrency is polled by {POLLERS}, another by {POLLERS_UNBOUND} while it is empty: as few as \
that, says AWS, so it may be more. What is free is counted as if nothing else in the account used it, for each line of \
the last table anew; offers of a first year are not counted."""
_LEFT_OUT = """\
Not counted: the CDK's own bootstrap stack, traffic to the internet, e-mails of pages (1,000 are free), CloudTrail's \
events, Athena (5 USD a TB, for windows beyond a function's memory), and what people read."""


def _read(out: Path) -> Assembly:
    try:
        return Assembly.read(out)
    except FileNotFoundError:
        raise Refused(f"{out} has no synthesised templates: npx cdk synth --quiet -c env=dev, and ask again") from None


def _counted(assembly: Assembly, load: Load) -> list[Usage]:
    try:
        return usages(assembly, load)
    except Unpriced as problem:
        raise Refused(str(problem)) from None


def _assumed(load: Load, assume: Sequence[str]) -> Load:
    given = dict(_pair("--assume", each) for each in assume)
    try:
        return Load.model_validate(load.model_dump() | given)
    except ValidationError as error:
        problem = error.errors()[0]
        known = ", ".join(Load.model_fields)
        raise Refused(f"--assume {'.'.join(map(str, problem['loc']))}: {problem['msg']}; known are {known}") from None


def _with(listed: Prices, given: Sequence[str]) -> Prices:
    """The listed prices, with those that a person gave in their place."""
    by_name = dict(listed.by_name)
    for name, usd in (_pair("--price", each) for each in given):
        try:
            number = float(usd)
        except ValueError:
            raise Refused(f"--price {name}={usd}: {usd!r} is no number of dollars") from None
        if not 0 <= number < float("inf"):
            raise Refused(f"--price {name}={usd}: a price is 0 or more")
        known = by_name.get(name)
        if known is None and not name.startswith("ml."):
            raise Refused(f"--price {name}: known are ml.<instance> and {', '.join(sorted(by_name))}")
        by_name[name] = (
            known.model_copy(update={"usd": number, "verified": True})
            if known
            else Price(service="SageMaker", unit="hours", usd=number, verified=True)
        )
    return listed.model_copy(update={"by_name": by_name})


def _pair(option: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise Refused(f"{option} {text}: write NAME=NUMBER")
    return name, value


def _rows(charges: Sequence[Charge], key: Callable[[Charge], str]) -> list[CostRow]:
    """The dearest first, and the sum of all."""
    grouped: dict[str, list[Charge]] = defaultdict(list)
    for charge in charges:
        grouped[key(charge)].append(charge)
    rows = [_row(name, each) for name, each in grouped.items()]
    return [*sorted(rows, key=lambda row: (-row.total, row.name)), _row("all", charges)]


def _row(name: str, charges: Sequence[Charge]) -> CostRow:
    by = {each: sum(charge.listed for charge in charges if charge.occasion is each) for each in Occasion}
    return CostRow(
        name=name,
        **{occasion.value: listed for occasion, listed in by.items()},
        total=sum(by.values()),
        paid=sum(charge.usd for charge in charges),
    )


def _sums(charges: Sequence[Charge]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for charge in charges:
        sums[f"{charge.service} of {charge.stack}"] += charge.listed
    return sums


def _differences(before: Mapping[str, float], after: Mapping[str, float]) -> list[Difference]:
    pairs = {what: (before.get(what, 0.0), after.get(what, 0.0)) for what in sorted({*before, *after})}
    return [
        Difference(what=what, before=old, after=new, difference=new - old)
        for what, (old, new) in pairs.items()
        if abs(new - old) >= CENT
    ]


class _Shown(BaseModel):
    """A row for people: dollars with their cents."""

    model_config = ConfigDict(extra="allow")


class _Brief(BaseModel):
    """A row for people, which fits beside others of long names: what is done under the load is in one column."""

    idle: float
    live: float
    load: float
    total: float
    paid: float
    name: str

    @classmethod
    def of(cls, row: CostRow) -> Self:
        load = row.uploads + row.trainings + row.predictions
        return cls(idle=row.idle, live=row.live, load=load, total=row.total, paid=row.paid, name=row.name)


def tell(answer: Estimate | Compared, *, as_json: bool) -> None:
    if as_json:
        write_json(answer.model_dump(mode="json"))
        return
    console = Console()
    if isinstance(answer, Estimate):
        _table(map(_Brief.of, answer.services), "service")
        console.print()
        # Without noria-<env>, which all have.
        short = [row.model_copy(update={"name": row.name.split("-", 2)[-1]}) for row in answer.stacks]
        _table(map(_Brief.of, short), "stack")
        console.print()
        _table(answer.units, "what", below=["", *answer.notes])
    else:
        change = answer.after - answer.before
        console.print(
            f"{answer.before:,.2f} USD a month before, {answer.after:,.2f} after: {change:+,.2f}", highlight=False
        )
        console.print()
        _table(answer.differences, "what", empty="Nothing costs more or less.")
        console.print()
        _table(answer.units, "what", empty="Nor does anything that is done.", below=["", *answer.notes])


def _table(rows: Iterable[BaseModel], what: str, *, empty: str = "", below: Sequence[str] = ()) -> None:
    """Dollars first; the last column says of what, and is called so."""
    shown = []
    for row in rows:
        told = row.model_dump()
        (words,) = (value for value in told.values() if isinstance(value, str))
        dollars = {name: f"{value:,.2f}" for name, value in told.items() if isinstance(value, float)}
        shown.append(_Shown.model_validate({**dollars, what: words}))
    show(shown, columns=list(shown[0].model_dump()) if shown else [], as_json=False, empty=empty, below=below)
