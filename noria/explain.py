"""Why a model answers as it does: Shapley values of its features, from nothing but its answers.

    local    contributions of the features to one prediction; with the average prediction they add up to it exactly
    global   a feature's share of the mean absolute contributions over many rows
    drift    whether predictions rest on the same features as at training

A feature's contribution is the mean, over orders of the features and over background rows, of how the answer changes
when the feature's value in the background row is replaced by the row's own (E. Strumbelj, I. Kononenko, Knowledge and
Information Systems 41, 2014). Each order is walked in reverse too, which cancels much of the chance (R. Mitchell et
al., Journal of Machine Learning Research 23, 2022). Every walk's steps add up to the difference between its two ends,
and so do the contributions. Chance is seeded by content: the same question has the same answer.

What is explained is the probability of the positive class (binary classification), the probability of the row's own
predicted class (multiclass) or the number (regression). Probabilities and not log-odds: they are what people see of an
answer and what thresholds cut, and a forest that answers 0 or 1 has no finite log-odds.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict

from noria.spec import Task

FILE = "attribution.json"

BACKGROUND_ROWS = 100
"""Of the training; the average prediction is theirs."""

TRAINING_ROWS, WINDOW_ROWS = 200, 100
FEWEST_ROWS = 50
"""Fewer explained rows would say more about chance."""

PAIRS = 4
"""Orders of the features, and as many reversed ones, for each row of a global attribution."""

MOST_ASKED, MOST_ASKED_AT_TRAINING = 20_000, 40_000
"""Rows that a model is asked for one global attribution: with many features, fewer rows are explained."""

BEYOND_CHANCE = 4.0
"""Standard errors beyond which a difference is no longer chance.

The worst case is a model whose few features weigh the same, where one pair of features out of order means a breach: of
24,000 simulated windows of such models, with two to five features, not one was below 0.5.
"""

Row = Mapping[str, Any]
Answer = Mapping[str, Any]
Ask = Callable[[Sequence[Row]], Sequence[Answer]]
"""From rows to the model's answers in the same order, as its endpoint gives them; for any number of rows."""


class UnexplainedError(Exception):
    """There is no explanation; the message says why."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Contribution(Part):
    """What a feature adds to the average prediction, and the standard error that the sampled orders and rows leave."""

    value: float
    standard_error: float


class Local(Part):
    """One prediction: `average` and the contributions add up to `prediction`."""

    prediction: float
    average: float
    contributions: dict[str, Contribution]


class Weight(Part):
    """What predictions rest on a feature: its mean absolute contribution, and its share of those of all features.

    Shares add up to one, or are zero where all rows are answered alike. The standard errors are of the chance of which
    rows were explained; that of the share is the one of a ratio of two means.
    """

    value: float
    standard_error: float
    share: float
    share_error: float


class Attribution(Part):
    """`attribution.json`: the global attribution of a bundle over rows that it was trained on.

    `bundle` is the SHA-256 of the file that is served; `background` the rows that absent features are taken from;
    `rows` how many were explained, by `pairs` orders of the features and as many reversed ones each. Where the features
    are too many, none were, and there are no weights.
    """

    bundle: str
    seed: str
    rows: int
    pairs: int
    seconds: float
    weights: dict[str, Weight]
    background: tuple[dict[str, Any], ...]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self.background[0])


class Change(Part):
    """A feature's share at training and in a window; `standard_error` of the difference of the two."""

    training: float
    window: float
    standard_error: float

    @property
    def changed(self) -> bool:
        """Whether by more than chance."""
        return abs(self.window - self.training) > BEYOND_CHANCE * self.standard_error


class WindowAttribution(Part):
    """Whether the predictions of a window rest on the same features as at training: 1 is the same, -1 the reverse.

    `correlation` is what is watched (see there). `spearman` (None where all shares of one side are equal) and `ndcg`
    are the plain measures, chance and all; the second is what SageMaker Clarify alarms on below 0.9.
    """

    rows: int
    features: dict[str, Change]
    correlation: float
    spearman: float | None
    ndcg: float

    @property
    def changed(self) -> list[str]:
        """Features whose share has changed by more than chance, those that changed most first."""
        return sorted(
            (name for name, change in self.features.items() if change.changed),
            key=lambda name: -abs(self.features[name].window - self.features[name].training),
        )


# --- explaining


def local(row: Row, background: Sequence[Row], ask: Ask, task: Task, *, seed: str, rounds: int = 1) -> Local:
    """Explain the answer to one row; each background row is walked from `rounds` times, forth and back.

    With so many features that a model would be asked too much, only some background rows are.
    """
    starts = background[: max(2, MOST_ASKED // (2 * (len(row) + 1)))]
    return _explain(row, list(starts) * rounds, ask, task, random.Random(seed))  # noqa: S311 - no secret


def weights(
    rows: Sequence[Row], background: Sequence[Row], ask: Ask, task: Task, *, pairs: int, seed: str
) -> dict[str, Weight]:
    """The global attribution over `rows`, and nothing over none."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return _weights(
        [
            {name: abs(contribution.value) for name, contribution in found.contributions.items()}
            for found in (_explain(row, _some(background, pairs, chance), ask, task, chance) for row in rows)
        ]
    )


def _weights(sizes: Sequence[Mapping[str, float]]) -> dict[str, Weight]:
    """From absolute contributions, by row."""
    totals = [math.fsum(size.values()) for size in sizes]
    total, rows = math.fsum(totals), len(sizes)
    found = {}
    for name in sizes[0] if sizes else ():
        mine = [size[name] for size in sizes]
        share = math.fsum(mine) / total if total else 0.0
        beyond = [one - share * every for one, every in zip(mine, totals, strict=True)]
        found[name] = Weight(
            value=math.fsum(mine) / rows,
            standard_error=_error_of_mean(mine),
            share=share,
            share_error=_error_of_mean(beyond) * rows / total if total else 0.0,
        )
    return found


def pairs_for(features: int) -> int:
    """Orders for each row: fewer where there are so many features that a window could not be asked otherwise."""
    return max(1, min(PAIRS, MOST_ASKED // (WINDOW_ROWS * 2 * (features + 1))))


def rows_for(features: int, *, most: int, asked: int) -> int:
    """How many rows can be explained without asking for more than `asked`; zero where they would be too few."""
    possible = min(most, asked // (pairs_for(features) * 2 * (features + 1)))
    return possible if possible >= FEWEST_ROWS else 0


def _some(background: Sequence[Row], count: int, chance: random.Random) -> list[Row]:
    return chance.sample(background, count) if count <= len(background) else chance.choices(background, k=count)


def _explain(row: Row, starts: Sequence[Row], ask: Ask, task: Task, chance: random.Random) -> Local:
    """One pair of walks from each start. A feature that has the same value there is left out: it changes nothing."""
    walks: list[tuple[list[str], list[Row]]] = []
    for start in starts:
        order = [name for name in row if row[name] != start[name]]
        chance.shuffle(order)
        walks += [(way, list(_walk(row, start, way))) for way in (order, order[::-1])]
    answers = iter(ask([step for _, steps in walks for step in steps]))
    changes: list[dict[str, float]] = []
    ends: list[tuple[float, float]] = []
    for way, steps in walks:
        values = _values([next(answers) for _ in steps], task)
        changes.append({name: after - before for name, (before, after) in zip(way, pairwise(values), strict=True)})
        ends.append((values[0], values[-1]))
    pairs = list(zip(changes[::2], changes[1::2], strict=True))
    return Local(
        prediction=ends[0][1],
        average=statistics.fmean(start for start, _ in ends),
        contributions={
            name: _contribution([(forth.get(name, 0.0) + back.get(name, 0.0)) / 2 for forth, back in pairs])
            for name in row
        },
    )


def _walk(row: Row, start: Row, order: Sequence[str]) -> Iterator[Row]:
    """From `start` to `row`, a feature at a time, both ends included."""
    step = {name: start[name] for name in row}
    yield step
    for name in order:
        step = step | {name: row[name]}
        yield step


def _values(answers: Sequence[Answer], task: Task) -> list[float]:
    """What is explained of each answer; the last one is to the row itself. Raises `UnexplainedError`."""
    try:
        if task is Task.MULTICLASS:
            predicted = str(answers[-1]["prediction"])
            return [float(answer["scores"][predicted]) for answer in answers]
        return [float(answer["score" if task is Task.BINARY else "prediction"]) for answer in answers]
    except (KeyError, TypeError, ValueError) as error:
        raise UnexplainedError(f"the model's answers hold no number to explain: {error!r}") from error


def _contribution(samples: Sequence[float]) -> Contribution:
    return Contribution(value=statistics.fmean(samples), standard_error=_error_of_mean(samples))


def _error_of_mean(samples: Sequence[float]) -> float:
    mean, count = statistics.fmean(samples), len(samples)
    return math.sqrt(math.fsum((sample - mean) ** 2 for sample in samples) / (count * max(1, count - 1)))


# --- comparing


def compare(training: Mapping[str, Weight], window: Mapping[str, Weight], *, rows: int) -> WindowAttribution:
    """Both of the same features. Raises `UnexplainedError` where a side's predictions rest on nothing."""
    for side, found in (("of the training", training), ("of the window", window)):
        if not any(weight.value for weight in found.values()):
            raise UnexplainedError(f"all explained rows {side} are answered alike, so no feature has any weight")
    before, after = ([found[name].share for name in training] for found in (training, window))
    return WindowAttribution(
        rows=rows,
        features={
            name: Change(
                training=weight.share,
                window=window[name].share,
                standard_error=math.hypot(weight.share_error, window[name].share_error),
            )
            for name, weight in training.items()
        },
        correlation=correlation(training, window),
        spearman=spearman(before, after),
        ndcg=ndcg(before, after),
    )


def correlation(training: Mapping[str, Weight], window: Mapping[str, Weight]) -> float:
    """How much likelier two features, drawn by their shares, are in the order of the training than in the reverse.

    Kendall's rank correlation, with each pair of features weighted by the product of their mean shares (S. Vigna, "A
    weighted correlation index for rankings with ties", WWW 2015), so that features without weight change places
    unheard; and a pair is reversed only where that takes more than chance. One where there is no pair.
    """
    reversed_, every = 0.0, 0.0
    for one, other in combinations(training, 2):
        a, b, c, d = training[one], training[other], window[one], window[other]
        weight = (a.share + c.share) * (b.share + d.share)
        before, after = a.value - b.value, c.value - d.value
        chance = math.hypot(*(side.standard_error for side in (a, b, c, d)))
        every += weight
        if before * after < 0 and abs(before - after) > BEYOND_CHANCE * chance:
            reversed_ += weight
    return 1 - 2 * reversed_ / every if every else 1.0


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Correlation of ranks, ties sharing their mean rank; None where one side is all ties."""
    try:
        return statistics.correlation(_ranks(first), _ranks(second))
    except statistics.StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; ties share the mean of theirs."""
    return [
        sum(other < value for other in values) + (1 + sum(other == value for other in values)) / 2 for value in values
    ]


def ndcg(training: Sequence[float], window: Sequence[float]) -> float:
    """Normalized discounted cumulative gain of the window's order, a feature's gain being its weight at training.

    Source: Amazon SageMaker AI developer guide, "Feature attribution drift for models in production".
    """
    order = sorted(range(len(window)), key=lambda place: -window[place])
    gained = _discounted([training[place] for place in order])
    return gained / _discounted(sorted(training, reverse=True))


def _discounted(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
