"""Two ways in which a version can be bad although it passed its gates, built into the ONNX model of a good one."""

from enum import StrEnum

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper


class Fault(StrEnum):
    FAILS = "it fails on the flights of one carrier"
    SWAPPED = "it takes late for early"


def swapped(model: bytes) -> bytes:
    """A binary classifier that answers with the other class's probability."""
    graph = onnx.load_model_from_string(model)
    (score,) = [output.name for output in graph.graph.output]
    return _ending(graph, [helper.make_node("Sub", ["one", "right"], [score])], {"one": _like(graph, 1)})


def failing(model: bytes, *, column: int, value: float) -> bytes:
    """A model that looks up what is not there wherever the feature at `column` is `value`: its server answers 5XX."""
    graph = onnx.load_model_from_string(model)
    (rows,), (score,) = ([each.name for each in side] for side in (graph.graph.input, graph.graph.output))
    nodes = [
        helper.make_node("Gather", [rows, "column"], ["feature"], axis=1),
        helper.make_node("Equal", ["feature", "value"], ["fails"]),
        helper.make_node("Cast", ["fails"], ["place"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["nothing"], axis=0),
        helper.make_node("Add", ["right", "nothing"], [score]),
    ]
    kind = graph.graph.input[0].type.tensor_type.elem_type
    constants = {
        "column": np.array([column], dtype=np.int64),
        "value": np.array(value, dtype=helper.tensor_dtype_to_np_dtype(kind)),
        "table": np.atleast_1d(_like(graph, 0)),
    }
    return _ending(graph, nodes, constants)


def _like(model: ModelProto, value: float) -> np.ndarray:
    """A number of the type that the model answers with."""
    return np.array(value, dtype=helper.tensor_dtype_to_np_dtype(model.graph.output[0].type.tensor_type.elem_type))


def _ending(model: ModelProto, nodes: list[NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    """The model with `nodes` after it, for which its own output is called `right`."""
    score = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["right" if name == score else name for name in node.output]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
