#!/usr/bin/env python3
"""A hilomoe checkpoint and encoded requests -> ONNX graphs and the inputs to run them on: see README.md."""

import argparse
import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import folded

OPSET = 17


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.inputs, self.known = [], [], [], {}

    def input(self, name, element, shape):
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def constant(self, array):
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.known:
            self.known[key] = f"w{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self.known[key]))
        return self.known[key]

    def add(self, operator, *inputs, outputs=1, **attributes):
        inputs = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        names = [f"{operator}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def save(self, path, shape):
        """The last node's output is the graph's."""
        self.nodes[-1].output[0] = "scores"
        out = helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)
        model = helper.make_model(helper.make_graph(self.nodes, path.stem, self.inputs, [out], self.constants),
                                  opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hilomoe")
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


class Float32:
    """x W + addend"""
    def linear(self, graph, x, weight, addend):
        return graph.add("Gemm", x, weight, addend)


class Int8:
    """The same as ONNX Runtime's quantize_dynamic writes it: weights int8, symmetric, a scale per output; inputs uint8
    with a scale and a zero point for the whole tensor, taken from its values when it is known."""

    def linear(self, graph, x, weight, addend):
        scale = (np.abs(weight).max(0) / 127).astype(np.float32)
        quantised = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        values, x_scale, x_zero = graph.add("DynamicQuantizeLinear", x, outputs=3)
        sums = graph.add("MatMulInteger", values, quantised, x_zero, np.zeros(len(scale), np.int8))
        product = graph.add("Mul", graph.add("Cast", sums, to=TensorProto.FLOAT), graph.add("Mul", x_scale, scale))
        return graph.add("Add", product, addend)


def squared_norm(graph, x):
    # Four times as fast as ReduceSumSquare or ReduceL2 on 1,000 rows.
    return graph.add("ReduceSum", graph.add("Mul", x, x), np.array([1]), keepdims=1)


def experts(graph, block, precision, stacked, squares):
    """The block's output from its stacked product and |x|^2."""
    O, L, K = block.O, block.L, block.K
    base, a = graph.add("Split", stacked, np.array([O, L * K]), outputs=2, axis=1)
    routed = a
    if block.unit_query:
        norm = graph.add("Max", graph.add("Sqrt", squares), np.float32(folded.MIN_QUERY_NORM))
        routed = graph.add("Div", a, norm)
    layers = graph.add("Split", graph.add("Add", routed, block.c), np.full(L, K), outputs=L, axis=1)
    layers = [layers] if L == 1 else layers
    scores = []
    for l, z in enumerate(layers):
        if l > 0:
            before = scores[0] if l == 1 else graph.add("Concat", *scores, axis=1)
            # 16 x 16 products gain nothing from int8.
            z = graph.add("Gemm", before, block.gram[l], z)
        scores.append(graph.add("Softmax", z, axis=1))
    gates = scores[0] if L == 1 else graph.add("Concat", *scores, axis=1)
    return graph.add("Relu", precision.linear(graph, graph.add("Mul", a, gates), block.U, base))


def embedded_ids(graph, model, ids, table, count):
    return graph.add("Reshape", graph.add("Gather", table, ids), np.array([-1, count * model.width]))


def embedded_numbers(graph, model, numbers):
    count = len(model.numbers)
    spread = graph.add("Mul", graph.add("Unsqueeze", numbers, np.array([2])), model.numbers[None])
    return graph.add("Reshape", spread, np.array([-1, count * model.width]))


def finish(graph, model, precision, y, path):
    """From the output of the first block to the scores."""
    for following in model.blocks[1:]:
        stacked = precision.linear(graph, y, following.stacked, following.bias)
        y = experts(graph, following, precision, stacked, squared_norm(graph, y))
    graph.add("Sigmoid", graph.add("Gemm", y, model.head_weight, model.head_bias))
    graph.save(path, ["rows", 1])


def export_flat(model, precision, path):
    """One row a candidate, with the context repeated."""
    graph, count = Graph(), len(model.offsets)
    numbers = graph.input("numbers", TensorProto.FLOAT, ["rows", len(model.numbers)])
    ids = graph.input("ids", TensorProto.INT32, ["rows", count])
    table = graph.constant(model.table)
    embedded = embedded_numbers(graph, model, numbers), embedded_ids(graph, model, ids, table, count)
    x = graph.add("Concat", *embedded, axis=1)
    first = model.blocks[0]
    stacked = precision.linear(graph, x, first.stacked, first.bias)
    finish(graph, model, precision, experts(graph, first, precision, stacked, squared_norm(graph, x)), path)


def export_split(model, precision, path):
    """The context's half of the first block once a request, added to each candidate's."""
    graph, first, split = Graph(), model.blocks[0], model.context_width
    numbers = graph.input("context_numbers", TensorProto.FLOAT, [1, len(model.numbers)])
    context_ids = graph.input("context_ids", TensorProto.INT32, [1, model.context_ids])
    candidates = len(model.offsets) - model.context_ids
    candidate_ids = graph.input("candidate_ids", TensorProto.INT32, ["rows", candidates])
    table = graph.constant(model.table)
    context = graph.add("Concat", embedded_numbers(graph, model, numbers),
                        embedded_ids(graph, model, context_ids, table, model.context_ids), axis=1)
    x = embedded_ids(graph, model, candidate_ids, table, candidates)
    shared = precision.linear(graph, context, first.stacked[:split], first.bias)
    stacked = precision.linear(graph, x, first.stacked[split:], shared)
    squares = graph.add("Add", squared_norm(graph, x), squared_norm(graph, context))
    finish(graph, model, precision, experts(graph, first, precision, stacked, squares), path)


def export_identity(model, path):
    """A call and nothing else: as many inputs as the split graph has (the flat one has one less, which is in its favour),
    and a result of the same shape."""
    graph = Graph()
    graph.input("numbers", TensorProto.FLOAT, ["rows", len(model.numbers)])
    graph.input("ids", TensorProto.INT32, ["rows", len(model.offsets)])
    graph.add("Identity", graph.input("given", TensorProto.FLOAT, ["rows", 1]))
    graph.save(path, ["rows", 1])


def write_inputs(requests, model, output):
    """inputs.bin and inputs.json: per number of candidates, where each array stands."""
    split = model.context_ids
    index, end = {}, 0
    with open(output / "inputs.bin", "wb") as file:
        for name in requests.files:
            if name == "labels":
                continue
            kind, N = name.split(".")
            array = requests[name]
            if kind == "context_ids":
                array = array + model.offsets[:split]
            elif kind == "candidate_ids":
                array = array + model.offsets[split:]
            index.setdefault(N, {})[kind] = {"offset": end, "shape": list(array.shape)}
            file.write(np.ascontiguousarray(array).tobytes())
            end += array.nbytes
    (output / "inputs.json").write_text(json.dumps(index))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="directory")
    parser.add_argument("--requests", required=True, help="requests.npz of make_model.py")
    parser.add_argument("--output", required=True, help="directory")
    options = parser.parse_args()
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    model = folded.read(options.checkpoint)
    for name, precision in (("fp32", Float32()), ("int8", Int8())):
        export_flat(model, precision, output / f"flat_{name}.onnx")
        export_split(model, precision, output / f"split_{name}.onnx")
    export_identity(model, output / "identity.onnx")
    write_inputs(np.load(options.requests), model, output)


if __name__ == "__main__":
    main()
