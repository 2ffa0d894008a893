"""Checkpoints: a fit that was interrupted, wherever, gives the very model of one that was not."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)

from pipelines.tabular.checkpoints import FILE, Checkpoints

ROWS, NEWEST = 160, 40
ITERATIONS = 6


class Interrupted(Exception):
    """The instance is gone."""


def table() -> tuple[Any, dict[str, Any]]:
    """Inputs with gaps and two categorical columns; targets of each task; weights."""
    generator = np.random.default_rng(3)
    inputs = generator.normal(size=(ROWS, 5))
    inputs[:, 3], inputs[:, 4] = generator.integers(0, 9, ROWS), generator.integers(0, 3, ROWS)
    inputs[generator.random(inputs.shape) < 0.05] = np.nan
    value = np.nan_to_num(inputs[:, 0]) * 2 + np.isin(inputs[:, 3], [1, 3, 7]) + generator.normal(size=ROWS)
    targets = {
        "binary": (value > 0.5).astype(float),
        "multiclass": np.digitize(value, [-0.5, 1]).astype(float),
        "regression": value,
        "positive": np.exp(value / 3),
    }
    return inputs, targets | {"weights": generator.random(ROWS)}


INPUTS, TARGETS = table()


def made(task: str, **chosen: Any) -> Any:
    kind = HistGradientBoostingClassifier if task in {"binary", "multiclass"} else HistGradientBoostingRegressor
    return kind(
        **{
            "max_iter": ITERATIONS,
            "max_leaf_nodes": 4,
            "learning_rate": 0.3,
            "categorical_features": [3, 4],
            "random_state": 7,
            "early_stopping": False,
        }
        | chosen
    )


def data(task: str, *, watched: bool = False, weighted: bool = False) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """What `fit` is given; `watched` holds the newest rows back to stop early by."""
    older = slice(0, ROWS - NEWEST) if watched else slice(None)
    newer = slice(ROWS - NEWEST, None)
    weights, target = TARGETS["weights"], TARGETS[task]
    more = {"X_val": INPUTS[newer], "y_val": target[newer]} if watched else {}
    more |= {"sample_weight": weights[older]} if weighted else {}
    more |= {"sample_weight_val": weights[newer]} if weighted and watched else {}
    return (INPUTS[older], target[older]), more


def answers(estimator: Any) -> bytes:
    """What it predicts, to the last bit, and all it has learnt and measured on the way."""
    predict = estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.predict
    scores = (estimator.train_score_, estimator.validation_score_)
    learnt = [tree.nodes.tobytes() for trees in estimator._predictors for tree in trees]
    return b"".join([predict(INPUTS).tobytes(), *(np.asarray(score).tobytes() for score in scores), *learnt])


def interrupted_after(checkpoints: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fit end abruptly once it has left so many checkpoints more."""
    left, replace = [checkpoints], Path.replace

    def replacing(path: Path, target: Path) -> Path:
        moved = replace(path, target)
        left[0] -= 1
        if not left[0]:
            raise Interrupted
        return moved

    monkeypatch.setattr(Path, "replace", replacing)


EARLY = {"early_stopping": True, "n_iter_no_change": 2}
CASES = [
    ("binary", {"class_weight": "balanced", "max_depth": 3, "max_bins": 31}, {}),
    ("multiclass", {}, {"weighted": True}),
    ("regression", {"loss": "absolute_error"}, {"weighted": True}),
    ("positive", {"loss": "poisson", "max_features": 0.5}, {}),
    ("binary", EARLY | {"tol": 0.1}, {"watched": True, "weighted": True}),
    ("multiclass", EARLY | {"learning_rate": 2.0}, {"watched": True}),
    ("regression", EARLY | {"scoring": "r2", "tol": 0.1}, {"watched": True}),
    ("regression", EARLY | {"loss": "quantile", "quantile": 0.7, "tol": 0.1}, {"weighted": True}),
    ("binary", EARLY | {"scoring": "roc_auc"}, {}),
    ("binary", EARLY | {"tol": 0.1, "validation_fraction": None}, {}),
]


@pytest.mark.parametrize(("task", "chosen", "given"), CASES)
def test_a_fit_interrupted_after_any_step_gives_the_model_of_one_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, chosen: dict[str, Any], given: dict[str, bool]
) -> None:
    """Each instance lives for one iteration only: after it, the next goes on."""
    rows, more = data(task, **given)
    whole = made(task, **chosen).fit(*rows, **more)
    instances = 0
    while True:
        instances += 1
        with monkeypatch.context() as lives:
            interrupted_after(1, lives)
            try:
                done = Checkpoints(tmp_path, every=0).fit(made(task, **chosen), *rows, **more)
            except Interrupted:
                continue
        break
    assert answers(done) == answers(whole)
    assert (done.n_iter_ < ITERATIONS) is bool(chosen.get("early_stopping")), "all of these stop early"
    assert done.get_params() == whole.get_params()
    assert instances == done.n_iter_


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """A fit that ends after so many checkpoints."""
    rows, _ = data("binary")
    with monkeypatch.context() as lives:
        interrupted_after(after, lives)
        with pytest.raises(Interrupted):
            Checkpoints(folder, every=0).fit(made("binary"), *rows)


def test_a_fit_goes_on_after_its_last_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path, monkeypatch, after=4)
    capsys.readouterr()
    rows, _ = data("binary")
    Checkpoints(tmp_path, every=60).fit(made("binary"), *rows)
    assert capsys.readouterr().out.splitlines() == [f"goes on after 4 of {ITERATIONS} iterations, from a checkpoint"]


def rewritten(checkpoint: Path, **changed: Any) -> None:
    """A checkpoint with other arrays in it, and the hash of these."""
    with np.load(io.BytesIO(checkpoint.read_bytes().partition(b"\n")[2])) as arrays:
        content = io.BytesIO()
        np.savez(content, **(dict(arrays) | changed))
    body = content.getvalue()
    checkpoint.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


class Code:
    """What runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of a checkpoint was run",))


def torn(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])


def empty(checkpoint: Path) -> None:
    checkpoint.write_bytes(b"")


def no_archive(checkpoint: Path) -> None:
    checkpoint.write_bytes(hashlib.sha256(b"x").hexdigest().encode() + b"\nx")


def with_code(checkpoint: Path) -> None:
    rewritten(checkpoint, nodes=np.array([Code()], dtype=object))


def other_trees(checkpoint: Path) -> None:
    """Under the right name and hash."""
    with np.load(io.BytesIO(checkpoint.read_bytes().partition(b"\n")[2])) as arrays:
        nodes = arrays["nodes"]
    nodes["value"] += 1
    rewritten(checkpoint, nodes=nodes)


@pytest.mark.parametrize("spoil", [torn, empty, no_archive, with_code, other_trees])
def test_a_checkpoint_that_cannot_be_believed_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spoil: Any
) -> None:
    interrupted(tmp_path, monkeypatch, after=3)
    spoil(tmp_path / FILE)
    capsys.readouterr()
    rows, _ = data("binary")
    done = Checkpoints(tmp_path, every=60).fit(made("binary"), *rows)
    assert "the training begins anew" in capsys.readouterr().out
    assert answers(done) == answers(made("binary").fit(*rows))


@pytest.mark.parametrize("other", ["a row", "the target", "a parameter", "the seed", "the estimator"])
def test_a_checkpoint_of_another_training_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    interrupted(tmp_path, monkeypatch, after=3)
    capsys.readouterr()
    (inputs, target), _ = data("binary")
    estimator = made("binary")
    if other == "a row":
        inputs = np.vstack([inputs[:-1], inputs[:1]])
    elif other == "the target":
        target = np.concatenate([target[:-1], 1 - target[-1:]])
    elif other == "the estimator":
        estimator = made("regression")
    else:
        estimator.set_params(**({"l2_regularization": 0.1} if other == "a parameter" else {"random_state": 8}))
    Checkpoints(tmp_path, every=60).fit(estimator, inputs, target)
    assert "it is of another training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("estimator", "why"),
    [
        (RandomForestRegressor(3, random_state=1), "cannot go on from its middle"),
        (made("regression", random_state=None), "without a random_state"),
    ],
)
def test_what_cannot_go_on_is_fitted_in_one_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], estimator: Any, why: str
) -> None:
    rows, _ = data("regression")
    rows = (np.nan_to_num(rows[0]), rows[1])
    Checkpoints(tmp_path, every=0).fit(estimator, *rows).predict(rows[0])
    assert why in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_fit_that_nothing_interrupts_is_that_without_checkpoints(tmp_path: Path, task: str) -> None:
    """As a file, too. A short one leaves no checkpoint."""
    rows, _ = data(task)
    whole = pickle.dumps(made(task).fit(*rows))
    assert pickle.dumps(Checkpoints(tmp_path).fit(made(task), *rows)) == whole
    assert not list(tmp_path.iterdir())
    assert pickle.dumps(Checkpoints(tmp_path, every=0).fit(made(task), *rows)) == whole
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
