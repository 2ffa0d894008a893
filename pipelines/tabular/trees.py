"""HistGradientBoosting as ONNX: the same trees in one TreeEnsemble operator, in double precision.

    inputs (rows, features) ─▶ TreeEnsemble ─▶ + baseline ─▶ link ─▶ output (rows, 1 or labels)

Inputs are what the estimator takes: numbers, a category as its position in the signature, NaN where missing. The link
is the logistic function (binary: the probability of the positive class), softmax (multiclass), none or the exponential
(regression).

skl2onnx 1.20 knows no split by a set of categories: it fails on them. TreeEnsemble (ai.onnx.ml 5) has BRANCH_MEMBER.
Numbers stay doubles, so that every comparison is the one that scikit-learn makes: the answers differ in the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from pipelines.tabular.signature import Signature

INPUT, OUTPUT = "inputs", "output"

# The first versions that have TreeEnsemble: those of ONNX 1.16.
OPSETS = {"": 21, "ai.onnx.ml": 5}
IR_VERSION = 10

BRANCH_LEQ, BRANCH_MEMBER = 0, 6
SUM = 1
NOBODY = -1
"""A category that there is not, for a set that is empty: the operator cannot have one."""

LINKS = {"LogitLink": "Sigmoid", "MultinomialLogit": "Softmax", "LogLink": "Exp", "IdentityLink": None}
"""The ONNX operator that undoes a link of scikit-learn's losses (sklearn._loss.link)."""

Nodes = NDArray[np.void]
"""A tree, (nodes,): records of `PREDICTOR_RECORD_DTYPE` in scikit-learn's hist_gradient_boosting/common.pyx."""


class NotExportable(Exception):
    """The estimator has no ONNX form here; the message says why."""


def export(estimator: Any, known: Signature) -> bytes:
    """The serialised ONNX model of a fitted estimator. Raises `NotExportable`."""
    if not isinstance(estimator, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        raise NotExportable(f"{type(estimator).__name__} is none of HistGradientBoosting")
    link = type(estimator._loss.link).__name__
    if link not in LINKS:
        raise NotExportable(f"its loss has a {link}, which has no ONNX form here")
    baseline = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(1, -1)
    ensemble = _Ensemble(_Columns(estimator, known))
    for trees in estimator._predictors:
        for target, tree in enumerate(trees):
            ensemble.add(tree, target)
    steps = [
        helper.make_node("TreeEnsemble", [INPUT], ["sum"], domain="ai.onnx.ml", **ensemble.attributes(baseline.size)),
        helper.make_node("Add", ["sum", "baseline"], ["raw"]),
        helper.make_node(LINKS[link] or "Identity", ["raw"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        steps,
        known.model,
        [helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, ["rows", len(known.features)])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, ["rows", baseline.size])],
        [numpy_helper.from_array(baseline, "baseline")],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="noria")
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


class _Columns:
    """From the columns of the trees to those of the signature.

    With categories, the estimator puts these before its numbers, and counts afresh those of them that it was fitted on.
    """

    def __init__(self, estimator: Any, known: Signature) -> None:
        preprocessor = estimator._preprocessor
        if preprocessor is None:
            self._positions = list(range(len(known.features)))
            return
        categorical = known.categorical
        self._positions = [*categorical, *(i for i in range(len(known.features)) if i not in categorical)]
        fitted = preprocessor.named_transformers_["encoder"].categories_
        self._fitted = [[int(code) for code in codes if not np.isnan(code)] for codes in fitted]
        self._all = [set(range(len(known.features[position].categories))) for position in categorical]

    def position(self, column: int) -> int:
        return self._positions[column]

    def left(self, column: int, bitset: NDArray[np.uint32], missing_goes_left: bool) -> list[int]:
        """Which categories a split sends to the left; those that were not fitted go where missing values go.

        `bitset` has a bit for each fitted category: 32 in each of 8 words, the lowest first.
        """
        fitted = self._fitted[column]
        chosen = {code for bit, code in enumerate(fitted) if int(bitset[bit // 32]) >> bit % 32 & 1}
        if missing_goes_left:
            chosen |= self._all[column].difference(fitted)
        return sorted(chosen) or [NOBODY]


class _Branch(NamedTuple):
    """Where a split leads: to a leaf or to another split, by position among these."""

    position: int
    is_leaf: bool


class _Split(NamedTuple):
    """A row for which the condition holds takes the branch `true`; one without a value does if `missing_is_true`."""

    feature: int
    mode: int
    threshold: float
    missing_is_true: bool
    true: _Branch
    false: _Branch


class _Leaf(NamedTuple):
    value: float
    target: int


@dataclass
class _Ensemble:
    """What a TreeEnsemble is made of; `members` holds the sets of the splits by category, each ended by NaN."""

    columns: _Columns
    roots: list[int] = field(default_factory=list)
    splits: list[_Split] = field(default_factory=list)
    leaves: list[_Leaf] = field(default_factory=list)
    members: list[float] = field(default_factory=list)

    def add(self, tree: Any, target: int) -> None:
        """Add one TreePredictor, whose leaves count for `target`."""
        nodes: Nodes = tree.nodes
        root = len(self.splits)
        self.roots.append(root)
        if nodes[0]["is_leaf"]:  # the operator wants a split: one with the same leaf on both sides
            leaf = self._leaf(nodes[0], target)
            self.splits.append(_Split(0, BRANCH_LEQ, 0.0, True, leaf, leaf))
        inner = np.flatnonzero(nodes["is_leaf"] == 0).tolist()
        place = {index: root + offset for offset, index in enumerate(inner)}

        def branch(child: int) -> _Branch:
            return self._leaf(nodes[child], target) if nodes[child]["is_leaf"] else _Branch(place[child], False)

        for index in inner:
            node = nodes[index]
            column, missing_is_true = int(node["feature_idx"]), bool(node["missing_go_to_left"])
            mode, threshold = BRANCH_LEQ, float(node["num_threshold"])
            if node["is_categorical"]:
                mode, threshold = BRANCH_MEMBER, 0.0
                bitset = tree.raw_left_cat_bitsets[node["bitset_idx"]]
                self.members += [*self.columns.left(column, bitset, missing_is_true), np.nan]
            true, false = branch(int(node["left"])), branch(int(node["right"]))
            self.splits.append(_Split(self.columns.position(column), mode, threshold, missing_is_true, true, false))

    def _leaf(self, node: Any, target: int) -> _Branch:
        self.leaves.append(_Leaf(float(node["value"]), target))
        return _Branch(len(self.leaves) - 1, True)

    def attributes(self, targets: int) -> dict[str, Any]:
        """The operator's attributes: one array for each property of splits and leaves."""
        attributes: dict[str, Any] = {
            "aggregate_function": SUM,
            "n_targets": targets,
            "tree_roots": self.roots,
            "nodes_featureids": [split.feature for split in self.splits],
            "nodes_modes": _tensor([split.mode for split in self.splits], np.uint8),
            "nodes_splits": _tensor([split.threshold for split in self.splits], np.float64),
            "nodes_missing_value_tracks_true": [int(split.missing_is_true) for split in self.splits],
            "nodes_truenodeids": [split.true.position for split in self.splits],
            "nodes_trueleafs": [int(split.true.is_leaf) for split in self.splits],
            "nodes_falsenodeids": [split.false.position for split in self.splits],
            "nodes_falseleafs": [int(split.false.is_leaf) for split in self.splits],
            "leaf_targetids": [leaf.target for leaf in self.leaves],
            "leaf_weights": _tensor([leaf.value for leaf in self.leaves], np.float64),
        }
        if self.members:
            attributes["membership_values"] = _tensor(self.members, np.float64)
        return attributes


def _tensor(values: Sequence[float], kind: type[np.generic]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=kind))
