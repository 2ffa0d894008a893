"""Golden rows: which answers count as the same, and how a difference is told."""

import pytest

from noria.golden import Answer, Golden

BUNDLE = "0" * 64


def mistakes(expected: Answer, answer: Answer) -> list[str]:
    return list(Golden(bundle=BUNDLE, rows=({"x": 1},), answers=(dict(expected),)).mistakes([answer]))


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ({"prediction": 1, "score": 0.7}, {"prediction": 1, "score": 0.70005}),
        ({"prediction": 120_000.0}, {"prediction": 120_001.0}),
        ({"prediction": 1, "score": 0.50001}, {"prediction": 0, "score": 0.49999}),
        (
            {"prediction": "a", "scores": {"a": 0.40001, "b": 0.4, "c": 0.19999}},
            {"prediction": "b", "scores": {"a": 0.4, "b": 0.40001, "c": 0.19999}},
        ),
    ],
    ids=["score", "relative", "undecided label", "undecided labels"],
)
def test_rounding_is_no_mistake(expected: Answer, answer: Answer) -> None:
    assert mistakes(expected, answer) == []


@pytest.mark.parametrize(
    ("expected", "answer", "words"),
    [
        ({"prediction": 1, "score": 0.7}, {"prediction": 1, "score": 0.71}, "row 0: score 0.71 instead of 0.7"),
        ({"prediction": 1, "score": 0.7}, {"prediction": 0, "score": 0.7}, "prediction 0 instead of 1"),
        ({"prediction": True, "score": 0.7}, {"prediction": 1, "score": 0.7}, "prediction 1 instead of True"),
        ({"prediction": 3.0}, {}, "prediction None instead of 3.0"),
        (
            {"prediction": "a", "scores": {"a": 0.9, "b": 0.1}},
            {"prediction": "a", "scores": {"a": 0.8, "b": 0.2}},
            "scores: a 0.8 instead of 0.9",
        ),
    ],
)
def test_a_mistake_names_row_field_and_both_values(expected: Answer, answer: Answer, words: str) -> None:
    assert words in ", ".join(mistakes(expected, answer))


def test_every_row_needs_an_answer() -> None:
    golden = Golden(bundle=BUNDLE, rows=({}, {}), answers=({"prediction": 1}, {"prediction": 2}))
    with pytest.raises(ValueError, match="shorter"):
        list(golden.mistakes([{"prediction": 1}]))
