"""A checkpoint as an inference engine wants it: batch norm folded, products stacked, routing through Gram matrices.

Per block, with a = x V^T times tau * alpha (which the router wants, and of which U is relieved):

    [base ; a] = x stacked + [bias ; 0]
    z_l = a_l * nu + c_l + concat(s_1 .. s_l-1) gram_l,  s_l = softmax(z_l),  nu = 1 or 1 / |x|
    y   = relu(base + (a * s) U)
"""

import dataclasses
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "pytorch"))

import logs
from checkpoint import read_safetensors

BATCH_NORM_EPSILON = 1e-5
MIN_QUERY_NORM = 1e-3


@dataclasses.dataclass
class Block:
    O: int
    L: int
    K: int
    stacked: np.ndarray  # [D, O + L*K]
    bias: np.ndarray     # [O + L*K], zeros behind O
    unit_query: bool
    c: np.ndarray        # [L*K]
    gram: list           # of layer l > 0: [l*K, K]
    U: np.ndarray        # [L*K, O]


@dataclasses.dataclass
class Model:
    """x is the context's numbers, the context's ids, the candidate's ids, each embedded `width` wide."""
    width: int
    context_ids: int
    numbers: np.ndarray  # [numbers, width]: an embedded number is its value times its row
    table: np.ndarray    # [rows, width]: the tables of all features, one below the other
    offsets: np.ndarray  # [ids]: where each feature's table begins
    blocks: list
    head_weight: np.ndarray  # [O, 1]
    head_bias: np.ndarray    # [1]

    @property
    def context_width(self):
        return self.width * (len(self.numbers) + self.context_ids)


def check_layout(config):
    features = logs.Features(config)
    wanted = features.numbers + features.single
    widths = {features.width(f) for f in features.all}
    if features.all != wanted or len(widths) != 1 or any(f.scope != f.CONTEXT for f in features.numbers):
        sys.exit("the peers know models of numbers of the context and ids alone, numbers first, all of one width")
    if any(f.numeric.transform != f.numeric.NONE or f.numeric.missing_indicator for f in features.numbers):
        sys.exit("the peers know no transform of numbers and no missing_indicator")
    for block in config.model.network.blocks:
        experts = block.experts
        if experts.layers == 0 or 0 < experts.top_k < experts.experts_per_layer or block.activation != block.RELU:
            sys.exit("the peers know blocks with densely routed experts and RELU alone")
        if not experts.hierarchical:
            sys.exit("the peers know hierarchical routing alone")
    return features


def fold_block(block, tensor):
    O, L, K = block.width, block.experts.layers, block.experts.experts_per_layer
    base, bias, U = tensor("base.weight"), tensor("base.bias"), tensor("experts.U").reshape(L * K, O)
    if block.batch_norm:
        a = tensor("norm.weight") / np.sqrt(tensor("norm.running_var") + BATCH_NORM_EPSILON)
        base, U = base * a[:, None], U * a
        bias = (bias - tensor("norm.running_mean")) * a + tensor("norm.bias")
    V = tensor("experts.V").reshape(L * K, -1)
    tau = tensor("router.tau").repeat(K)
    scale = tau * tensor("router.alpha")
    if not np.all(np.abs(scale) > 1e-6):
        sys.exit("a layer's routing scale is 0; its experts cannot be divided by it")
    gram = tau[:, None] * (V @ V.T)
    f32 = lambda values: np.ascontiguousarray(values, np.float32)
    return Block(O, L, K, f32(np.concatenate([base, V * scale[:, None]]).T), f32(np.concatenate([bias, 0 * scale])),
                 block.experts.query_norm == block.experts.UNIT, f32(tensor("router.c").reshape(-1)),
                 [f32(gram[l * K : (l + 1) * K, : l * K].T) for l in range(L)], f32(U / scale[:, None]))


def read(checkpoint):
    directory = pathlib.Path(checkpoint)
    config = logs.read_config(directory / "config.textproto")
    features = check_layout(config)
    tensors = read_safetensors(directory / "weights.safetensors")
    tables = {t.name: tensors[f"embedding.{t.name}.weight"] for t in features.tables}
    begins = dict(zip(tables, np.cumsum([0, *(len(t) for t in tables.values())])))
    blocks = [fold_block(block, lambda name, b=b: tensors[f"blocks.{b}.{name}"].astype(np.float64))
              for b, block in enumerate(config.model.network.blocks)]
    return Model(width=features.width(features.all[0]),
                 context_ids=sum(f.scope == f.CONTEXT for f in features.single),
                 numbers=np.stack([tensors[f"numeric.{f.name}.weight"] for f in features.numbers]),
                 table=np.concatenate(list(tables.values())),
                 offsets=np.array([begins[features.owner[f.name].name] for f in features.single], np.int32),
                 blocks=blocks, head_weight=tensors["head.weight"].reshape(-1, 1), head_bias=tensors["head.bias"])
