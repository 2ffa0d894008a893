"""A fit that goes on where it was interrupted: for Spot instances.

    iterations ─▶ checkpoint ─▶ iterations ─▶ checkpoint ─▶ … ─▶ the model
         the first, anew; are the checkpoint's others its sequel? ──▲

scikit-learn goes on with a fit where `warm_start` is set. For HistGradientBoosting that gives the very model of one
fit, wherever it was interrupted: tests/unit/pipelines/test_checkpoints.py. Other estimators are fitted without
checkpoints. These are left between two iterations, by a hook in the loss, which each iteration asks first: steps of
`warm_start` would predict with all trees so far after each step, which makes the work quadratic.

A checkpoint is data and never code: arrays without pickles, behind their SHA-256. Nothing of it is believed but trees
and scores. Everything else is made anew by the first iteration, whose trees must be those that the checkpoint begins
with: so another training's checkpoint could not be taken up even if its name and hash were right.
"""

import hashlib
import io
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

FILE = "checkpoint"

UNFINISHED = f"{FILE}.sagemaker-ignore"
"""SageMaker does not send what is called so (aws/sagemaker-xgboost-container, `checkpointing.py`)."""

EVERY = 60.0
"""Seconds of work between two checkpoints: what an interruption may cost."""

ANEW = "the checkpoint is not used, and the training begins anew"

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
        done, last = 0, time.monotonic()
        if begun := self._begun(estimator, training, inputs, target, **more):
            estimator, done = begun.set_params(max_iter=most, warm_start=True), begun.n_iter_
            _say(f"goes on after {done} of {most} iterations, from a checkpoint")

        def leave() -> None:
            nonlocal done, last
            if len(estimator._predictors) > done and time.monotonic() - last >= self.every:
                self._leave(estimator, training)
                done, last = len(estimator._predictors), time.monotonic()
                _say(f"checkpoint after {done} of {most} iterations")

        with _before_each_iteration(estimator, leave):
            estimator.fit(inputs, target, **more)
        return estimator.set_params(warm_start=warm_start)

    def _begun(self, estimator: Any, training: str, inputs: NDArray[Any], target: NDArray[Any], **more: Any) -> Any:
        """A copy of `estimator` that has fitted what the checkpoint has, if there is one of this very training."""
        if not (self.folder / FILE).exists():
            return None
        try:
            state = _read(self.folder / FILE, training)
        except _Unusable as why:
            _say(f"{ANEW}: {why}")
            return None
        begun = clone(estimator).set_params(max_iter=1).fit(inputs, target, **more)
        if not _same(state.trees[0], begun._predictors[0]):
            _say(f"{ANEW}: its first iteration is not that of this training")
            return None
        begun._predictors, begun._feature_subsample_rng = state.trees, state.generator
        begun.train_score_, begun.validation_score_ = state.train_score, state.validation_score
        return begun

    def _leave(self, estimator: Any, training: str) -> None:
        """Write the state of a fit at once, or not at all."""
        trees = [tree for iteration in estimator._predictors for tree in iteration]
        about = {"training": training, "generator": estimator._feature_subsample_rng.bit_generator.state}
        content = io.BytesIO()
        np.savez(
            content,
            about=np.array(json.dumps(about)),
            iterations=np.array(len(estimator._predictors)),
            nodes=np.concatenate([tree.nodes for tree in trees]),
            node_counts=np.array([len(tree.nodes) for tree in trees]),
            binned_bitsets=np.concatenate([tree.binned_left_cat_bitsets for tree in trees]),
            raw_bitsets=np.concatenate([tree.raw_left_cat_bitsets for tree in trees]),
            bitset_counts=np.array([len(tree.raw_left_cat_bitsets) for tree in trees]),
            train_score=np.array(estimator.train_score_),
            validation_score=np.array(estimator.validation_score_),
        )
        body = content.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / UNFINISHED
        unfinished.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        unfinished.replace(self.folder / FILE)


@dataclass(frozen=True)
class _State:
    """What the first iterations of a fit leave to those that follow."""

    trees: Trees
    generator: np.random.Generator
    train_score: NDArray[np.float64]
    validation_score: NDArray[np.float64]


@contextmanager
def _before_each_iteration(estimator: Any, act: Callable[[], None]) -> Iterator[None]:
    """While it is fitted, do something where the iterations before are complete, and the next one is to come.

    Each begins by asking the loss for gradients. Source: scikit-learn, `BaseHistGradientBoosting.fit`.
    """
    make, asking = estimator._get_loss, []

    def watched(**given: Any) -> Any:
        loss = make(**given)
        asked = "gradient" if loss.constant_hessian else "gradient_hessian"
        answer = getattr(loss, asked)

        def acting(**given: Any) -> Any:
            act()
            return answer(**given)

        setattr(loss, asked, acting)
        asking.append((loss, asked))
        return loss

    estimator._get_loss = watched
    try:
        yield
    finally:
        del estimator._get_loss
        for loss, asked in asking:
            delattr(loss, asked)


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


def _read(path: Path, training: str) -> _State:
    """The state in a checkpoint of this training. Raises `_Unusable`."""
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
