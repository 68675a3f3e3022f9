#!/usr/bin/env python3
"""Runs a hilomoe checkpoint with PyTorch, as compare.py asks line by line: see onnxruntime_peer.js.

  pytorch_peer.py CHECKPOINT DIRECTORY THREADS

The same folded, stacked, Gram-routed network as the graphs of export_onnx.py; rows flat_fp32 and split_fp32.
"""

import json
import os
import pathlib
import sys
import time

if __name__ == "__main__":
    # OpenBLAS has threads of its own, which torch.set_num_threads does not reach.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = sys.argv[3]

import numpy as np
import torch
from torch.nn import functional as F

import folded


class Network(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        tensor = lambda array: torch.from_numpy(np.array(array))  # a copy: those of a file cannot be written to
        self.split, self.context_ids = model.context_width, model.context_ids
        self.table, self.numbers = tensor(model.table), tensor(model.numbers)
        self.blocks = [(b, tensor(b.stacked), tensor(b.bias), tensor(b.c), [tensor(g) for g in b.gram], tensor(b.U))
                       for b in model.blocks]
        self.head_weight, self.head_bias = tensor(model.head_weight), tensor(model.head_bias)

    def embed_ids(self, ids):
        return F.embedding(ids, self.table).flatten(1)

    def embed(self, numbers, ids):
        return torch.cat([(numbers.unsqueeze(2) * self.numbers).flatten(1), self.embed_ids(ids)], 1)

    def experts(self, block, stacked, squares):
        b, _, _, c, gram, U = block
        base, a = stacked.split([b.O, b.L * b.K], 1)
        routed = a / squares.sqrt().clamp_min(folded.MIN_QUERY_NORM) if b.unit_query else a
        layers = (routed + c).split(b.K, 1)
        scores = []
        for l, z in enumerate(layers):
            if l > 0:
                z = torch.addmm(z, scores[0] if l == 1 else torch.cat(scores, 1), gram[l])
            scores.append(torch.softmax(z, 1))
        return torch.addmm(base, a * torch.cat(scores, 1), U).relu_()

    def finish(self, y):
        for block in self.blocks[1:]:
            y = self.experts(block, torch.addmm(block[2], y, block[1]), squared_norm(y))
        return torch.sigmoid(torch.addmm(self.head_bias, y, self.head_weight))

    def flat(self, numbers, ids):
        x = self.embed(numbers, ids)
        _, stacked, bias, *_ = self.blocks[0]
        return self.finish(self.experts(self.blocks[0], torch.addmm(bias, x, stacked), squared_norm(x)))

    def split_rows(self, context_numbers, context_ids, candidate_ids):
        context, x = self.embed(context_numbers, context_ids), self.embed_ids(candidate_ids)
        _, stacked, bias, *_ = self.blocks[0]
        # Two addmm in a row would be taken for a tree of products of equal sizes when traced, which fails.
        shared = F.linear(context, stacked[: self.split].T, bias)
        squares = squared_norm(x) + squared_norm(context)
        return self.finish(self.experts(self.blocks[0], torch.addmm(shared, x, stacked[self.split :]), squares))


def squared_norm(x):
    return x.square().sum(1, keepdim=True)


class Calls:
    """The inputs of every request with N candidates, made once."""

    def __init__(self, index, data, N, split):
        def array(name, kind):
            entry = index[str(N)][name]
            count = int(np.prod(entry["shape"]))
            return torch.from_numpy(np.frombuffer(data, kind, count, entry["offset"]).reshape(entry["shape"]).copy())

        numbers, context = array("context_numbers", np.float32), array("context_ids", np.int32)
        self.inputs, self.next = [], 0
        for r, candidates in enumerate(array("candidate_ids", np.int32)):
            own = numbers[r : r + 1], context[r : r + 1]
            self.inputs.append((*own, candidates) if split else
                               (own[0].repeat(N, 1), torch.cat([own[1].repeat(N, 1), candidates], 1)))


def trace(function, inputs):
    class Traced(torch.nn.Module):
        def forward(self, *inputs):
            return function(*inputs)

    return torch.jit.trace(Traced().eval(), inputs)


class Peer:
    def __init__(self, checkpoint, directory):
        directory = pathlib.Path(directory)
        net = Network(folded.read(checkpoint)).eval()
        forward = {"flat_fp32": net.flat, "split_fp32": net.split_rows}
        self.rows = list(forward)
        index, data = json.loads((directory / "inputs.json").read_text()), (directory / "inputs.bin").read_bytes()
        self.calls = {row: {int(N): Calls(index, data, int(N), row.startswith("split")) for N in index}
                      for row in forward}
        # A frozen trace spares a third of the time of one candidate; it is made of its own shapes.
        self.functions = {(row, N): torch.jit.freeze(trace(function, self.calls[row][N].inputs[0]))
                          for row, function in forward.items() for N in self.calls[row]}

    def score(self, row, output):
        scores = [self.functions[row, N](*inputs).view(-1)
                  for N, calls in self.calls[row].items() for inputs in calls.inputs]
        torch.cat(scores).numpy().tofile(output)
        return {}

    def time(self, row, N, ms):
        function, calls = self.functions[row, N], self.calls[row][N]

        def until(start, limit):
            done = 0
            while True:
                function(*calls.inputs[calls.next])
                calls.next = (calls.next + 1) % len(calls.inputs)
                done += 1
                if time.perf_counter_ns() - start >= limit:
                    return done

        until(time.perf_counter_ns(), ms * 2e5)
        start = time.perf_counter_ns()
        done = until(start, ms * 1e6)
        return {"ns": (time.perf_counter_ns() - start) / done}


def main():
    torch.set_num_threads(int(sys.argv[3]))
    torch.set_flush_denormal(True)
    with torch.no_grad():
        peer = Peer(*sys.argv[1:3])
        for line in sys.stdin:
            ask = json.loads(line)
            if ask["do"] == "score":
                answer = peer.score(ask["row"], ask["output"])
            elif ask["do"] == "time":
                answer = peer.time(ask["row"], ask["candidates"], ask["ms"])
            else:
                answer = {"version": torch.__version__, "rows": peer.rows}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
