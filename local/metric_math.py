"""CloudWatch's arithmetic: statistics of a period, and metric math on series of periods."""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Series = list[float | None]

# --- statistics


@dataclass(frozen=True, slots=True)
class Sample:
    """What was published at one moment: `count` values between `low` and `high` that add up to `total`."""

    timestamp: float
    count: float
    total: float
    low: float
    high: float

    @classmethod
    def from_point(cls, point: Mapping[str, Any]) -> "Sample":
        """From MiniStack's stored point: a statistic set, or one value seen `Count` times."""
        if (known := point.get("_stat")) is not None:
            count, total, low, high = (float(known[k]) for k in ("SampleCount", "Sum", "Minimum", "Maximum"))
        else:
            value, count = float(point["Value"]), float(point.get("Count", 1))
            total, low, high = value * count, value, value
        return cls(float(point["Timestamp"]), count, total, low, high)


def statistic(samples: Sequence[Sample], name: str) -> float | None:
    """One period's statistic; None without samples, and for a percentile or trimmed count of statistic sets."""
    samples = [sample for sample in samples if sample.count > 0]
    if not samples:
        return None
    if name in _STATISTICS:
        return _STATISTICS[name](samples)
    share, most = percentile(name), _trimmed_count(name)
    if share is None and most is None:
        raise ValueError(f"unsupported statistic {name}")
    if most is not None and all(sample.high <= most or sample.low > most for sample in samples):
        return sum(sample.count for sample in samples if sample.high <= most)
    if share is None or any(sample.low != sample.high for sample in samples):
        return None
    return _percentile([(sample.low, sample.count) for sample in samples], share)


_STATISTICS: dict[str, Callable[[Sequence[Sample]], float]] = {
    "SampleCount": lambda samples: sum(sample.count for sample in samples),
    "Sum": lambda samples: sum(sample.total for sample in samples),
    "Average": lambda samples: sum(sample.total for sample in samples) / sum(sample.count for sample in samples),
    "Minimum": lambda samples: min(sample.low for sample in samples),
    "Maximum": lambda samples: max(sample.high for sample in samples),
}


def percentile(name: str) -> float | None:
    """0.95 for `p95`; None if this is no percentile."""
    match = re.fullmatch(r"p(\d{1,2}(?:\.\d+)?|100)", name)
    return float(match[1]) / 100 if match else None


def _trimmed_count(name: str) -> float | None:
    """300 for `TC(:300)`, how many values are no larger; None if this is none."""
    match = re.fullmatch(r"TC\(:(\d+(?:\.\d+)?)\)", name)
    return float(match[1]) if match else None


def _percentile(weighted: list[tuple[float, float]], share: float) -> float:
    """Linear interpolation between the two nearest ranks."""
    weighted = sorted(weighted)
    rank = share * (sum(weight for _, weight in weighted) - 1)

    def at(index: int) -> float:
        seen = 0.0
        for value, weight in weighted:
            seen += weight
            if index < seen:
                return value
        return weighted[-1][0]

    low = at(math.floor(rank))
    return low + (rank - math.floor(rank)) * (at(math.ceil(rank)) - low)


# --- metric math

_ARITHMETIC: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_EACH: dict[str, Callable[[float], float]] = {"ABS": abs, "CEIL": math.ceil, "FLOOR": math.floor}
_ACROSS: dict[str, Callable[[list[float]], float]] = {
    "SUM": sum,
    "AVG": lambda values: sum(values) / len(values),
    "MIN": min,
    "MAX": max,
}


def expression(text: str, series: Mapping[str, Series]) -> Series:
    """Metric math over series of the same periods; a period without a value has None.

    Arithmetic, comparisons, AND and OR, `IF`, `FILL`, `ABS`, `CEIL`, `FLOOR`, and `SUM`, `AVG`, `MIN`, `MAX` of an
    array (`[m1, m2]` or `METRICS()`). Division by zero gives no value. Raises ValueError for what is not understood.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
    """
    python = text.strip().replace("^", "**").replace("&&", " and ").replace("||", " or ")
    python = re.sub(r"\b(AND|OR)\b", lambda match: match[0].lower(), python)
    try:
        tree = ast.parse(python, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"cannot read the expression {text!r}") from error
    length = max((len(values) for values in series.values()), default=0)
    result = _Expression(text, series, length).value(tree)
    return [result] * length if isinstance(result, float) else result


@dataclass(frozen=True)
class _Expression:
    text: str
    series: Mapping[str, Series]
    length: int

    def value(self, node: ast.expr) -> Series | float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name) if name in self.series:
                return self.series[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.zipped(lambda value: -value, operand)
            case (
                ast.BinOp(left=left, op=ast.AST() as op, right=right)
                | ast.Compare(left=left, ops=[op], comparators=[right])
            ) if type(op) in _ARITHMETIC:
                return self.zipped(_ARITHMETIC[type(op)], left, right)
            case ast.BoolOp(op=op, values=operands):
                decide = all if isinstance(op, ast.And) else any
                return self.zipped(lambda *values: float(decide(values)), *operands)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self.call(name.upper(), arguments)
        raise ValueError(f"cannot evaluate {ast.unparse(node)!r} in {self.text!r}")

    def call(self, name: str, arguments: list[ast.expr]) -> Series | float:
        match name, arguments:
            case "IF", [condition, then, otherwise]:
                return self.chosen(condition, then, otherwise)
            case "FILL", [metric, filler]:
                return self.filled(metric, filler)
            case _, [operand] if name in _EACH:
                return self.zipped(_EACH[name], operand)
            case _, [operand] if name in _ACROSS:
                present = zip(*(self.periods(value) for value in self.array(operand)), strict=True)
                return [
                    _ACROSS[name](known) if (known := [v for v in row if v is not None]) else None for row in present
                ]
        raise ValueError(f"cannot evaluate {name} in {self.text!r}")

    def array(self, node: ast.expr) -> list[Series | float]:
        match node:
            case ast.List(elts=elements):
                return [self.value(element) for element in elements]
            case ast.Call(func=ast.Name(id="METRICS"), args=[]):
                return list(self.series.values())
        raise ValueError(f"{ast.unparse(node)!r} is not an array, in {self.text!r}")

    def zipped(self, combine: Callable[..., float], *operands: ast.expr) -> Series | float:
        values = [self.value(operand) for operand in operands]
        rows = zip(*(self.periods(value) for value in values), strict=True)
        combined = [_or_none(combine, row) for row in rows]
        if combined and combined[0] is not None and all(isinstance(value, float) for value in values):
            return combined[0]
        return combined

    def chosen(self, condition: ast.expr, then: ast.expr, otherwise: ast.expr) -> Series:
        """A missing condition counts as false."""
        columns = (self.periods(self.value(node)) for node in (condition, then, otherwise))
        return [yes if known else no for known, yes, no in zip(*columns, strict=True)]

    def filled(self, metric: ast.expr, filler: ast.expr) -> Series:
        series = self.periods(self.value(metric))
        if isinstance(filler, ast.Name) and filler.id == "REPEAT":
            last: float | None = None
            return [last := (last if value is None else value) for value in series]
        fillers = self.periods(self.value(filler))
        return [other if value is None else value for value, other in zip(series, fillers, strict=True)]

    def periods(self, value: Series | float) -> Series:
        return [value] * self.length if isinstance(value, float) else value


def _or_none(combine: Callable[..., float], row: tuple[float | None, ...]) -> float | None:
    if any(value is None for value in row):
        return None
    try:
        return float(combine(*row))
    except ZeroDivisionError:
        return None
