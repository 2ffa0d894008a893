"""A fit in steps, which goes on after the last one where it was interrupted: for Spot instances.

    iteration 1 ─▶ step ─▶ checkpoint ─▶ step ─▶ checkpoint ─▶ … ─▶ the model
         └ is that of the checkpoint? its trees follow ──▲

scikit-learn goes on with a fit where `warm_start` is set and `max_iter` has grown. For HistGradientBoosting the steps
add up to the very model of one fit, whatever their sizes: tests/unit/pipelines/test_checkpoints.py. Other estimators
are fitted in one go.

A checkpoint is data and never code: arrays without pickles, behind their SHA-256. Nothing of it is believed but trees
and scores. Everything else is made anew by the first iteration, whose trees must be those that the checkpoint begins
with: so another training's checkpoint could not be taken up even if its name and hash were right.
"""

import hashlib
import io
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

FILE = "checkpoint"

UNFINISHED = f"{FILE}.sagemaker-ignore"
"""SageMaker does not send what is called so (aws/sagemaker-xgboost-container, `checkpointing.py`)."""

EVERY = 60.0
"""Seconds of work between two checkpoints: what an interruption may cost."""

Trees = list[list[TreePredictor]]


class _Unusable(Exception):
    """A checkpoint cannot be taken up; the message says why."""


@dataclass(frozen=True)
class Checkpoints:
    """Where a fit leaves its checkpoints and looks for one, and after how many seconds of work it leaves the next."""

    folder: Path
    every: float = EVERY

    def fit(self, estimator: Any, inputs: NDArray[Any], target: NDArray[Any], **more: Any) -> Any:
        """`estimator`, fitted as its own `fit` would; says in the log what became of checkpoints."""
        name = type(estimator).__name__
        if type(estimator) not in {HistGradientBoostingClassifier, HistGradientBoostingRegressor}:
            _say(f"{name} cannot go on from its middle: it is fitted without checkpoints")
            return estimator.fit(inputs, target, **more)
        if not isinstance(estimator.random_state, int):
            _say(f"{name} without a random_state fits another model each time: it is fitted without checkpoints")
            return estimator.fit(inputs, target, **more)
        training = _identity(estimator, {"inputs": inputs, "target": target, **more})
        most, warm_start = estimator.max_iter, estimator.warm_start

        def until(iterations: int) -> float:
            """Fit so many in all; returns the seconds that each new one took."""
            began, before = time.monotonic(), int(getattr(estimator, "n_iter_", 0))
            estimator.set_params(max_iter=iterations, warm_start=True).fit(inputs, target, **more)
            return (time.monotonic() - began) / max(int(estimator.n_iter_) - before, 1)

        seconds = until(1)
        self._take_up(estimator, training, most)
        while not _ended(estimator, most):
            step = max(1, int(self.every / seconds))
            seconds = until(min(most, estimator.n_iter_ + step))
            if not _ended(estimator, most):
                self._leave(estimator, training)
                _say(f"checkpoint after {estimator.n_iter_} of {most} iterations")
        return estimator.set_params(max_iter=most, warm_start=warm_start)

    def _leave(self, estimator: Any, training: str) -> None:
        """Write the state of a fit at once, or not at all."""
        trees = [tree for iteration in estimator._predictors for tree in iteration]
        about = {"training": training, "generator": estimator._feature_subsample_rng.bit_generator.state}
        content = io.BytesIO()
        np.savez(
            content,
            about=np.array(json.dumps(about)),
            iterations=np.array(estimator.n_iter_),
            nodes=np.concatenate([tree.nodes for tree in trees]),
            node_counts=np.array([len(tree.nodes) for tree in trees]),
            binned_bitsets=np.concatenate([tree.binned_left_cat_bitsets for tree in trees]),
            raw_bitsets=np.concatenate([tree.raw_left_cat_bitsets for tree in trees]),
            bitset_counts=np.array([len(tree.raw_left_cat_bitsets) for tree in trees]),
            train_score=estimator.train_score_,
            validation_score=estimator.validation_score_,
        )
        body = content.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / UNFINISHED
        unfinished.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        unfinished.replace(self.folder / FILE)

    def _take_up(self, estimator: Any, training: str, most: int) -> None:
        """Let a fit of one iteration go on after those of the checkpoint, if there is one of this very training."""
        if not (self.folder / FILE).exists():
            return
        try:
            state = _read(self.folder / FILE, training, estimator._predictors[0])
        except _Unusable as why:
            _say(f"the checkpoint is not used, and the training begins anew: {why}")
            return
        estimator._predictors = state.trees
        estimator._feature_subsample_rng = state.generator
        estimator.train_score_, estimator.validation_score_ = state.train_score, state.validation_score
        _say(f"goes on after {estimator.n_iter_} of {most} iterations, from a checkpoint")


@dataclass(frozen=True)
class _State:
    """What the first iterations of a fit leave to those that follow."""

    trees: Trees
    generator: np.random.Generator
    train_score: NDArray[np.float64]
    validation_score: NDArray[np.float64]


def _ended(estimator: Any, most: int) -> bool:
    """Whether one fit would have stopped here: at `max_iter`, or early, by the rule of HistGradientBoosting.

    A fit that is continued does not ask whether the one before it was to stop at its last iteration.
    """
    if estimator.n_iter_ >= most or not estimator.do_early_stopping_:
        return bool(estimator.n_iter_ >= most)
    scores = estimator.validation_score_ if len(estimator.validation_score_) else estimator.train_score_
    patience = estimator.n_iter_no_change
    return len(scores) > patience and not bool(np.any(scores[-patience:] > scores[-patience - 1] + estimator.tol))


def _identity(estimator: Any, data: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of all that a fit depends on: rows, parameters and versions."""
    about = {
        "estimator": type(estimator).__name__,
        "parameters": {name: repr(value) for name, value in estimator.get_params().items()},
        "versions": {name: version(name) for name in ("numpy", "scikit-learn", "scipy")},
        "python": platform.python_version(),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(data.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: Path, training: str, first: list[TreePredictor]) -> _State:
    """The state in a checkpoint of this training, whose first iteration is `first`. Raises `_Unusable`."""
    digest, _, body = path.read_bytes().partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise _Unusable("it is damaged")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            arrays = dict(stored)
        about = json.loads(str(arrays["about"]))
        named, bits = about["training"], np.random.PCG64()
        bits.state = about["generator"]
        generator = np.random.Generator(bits)
        state = _State(_trees(arrays), generator, arrays["train_score"], arrays["validation_score"])
    except (BadZipFile, EOFError, LookupError, TypeError, ValueError) as error:
        raise _Unusable(f"it cannot be read: {error}") from error
    if named != training:
        raise _Unusable("it is of another training")
    if not _same(state.trees[0], first):
        raise _Unusable("its first iteration is not that of this training")
    return state


def _trees(arrays: Mapping[str, NDArray[Any]]) -> Trees:
    """The trees of a checkpoint, as many for each iteration."""

    def parted(name: str, counts: str) -> list[NDArray[Any]]:
        return np.split(arrays[name], np.cumsum(arrays[counts])[:-1])

    nodes = parted("nodes", "node_counts")
    binned, raw = (parted(name, "bitset_counts") for name in ("binned_bitsets", "raw_bitsets"))
    trees = [TreePredictor(*parts) for parts in zip(nodes, binned, raw, strict=True)]
    each = len(trees) // int(arrays["iterations"])
    return [trees[start : start + each] for start in range(0, len(trees), each)]


def _same(one: list[TreePredictor], other: list[TreePredictor]) -> bool:
    return [_parts(tree) for tree in one] == [_parts(tree) for tree in other]


def _parts(tree: TreePredictor) -> tuple[bytes, ...]:
    return tree.nodes.tobytes(), tree.binned_left_cat_bitsets.tobytes(), tree.raw_left_cat_bitsets.tobytes()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a job's log is what it prints
