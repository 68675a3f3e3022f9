"""The network of a training config in PyTorch: embeddings, blocks with rank-1 experts, head."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from logs import Features

MIN_QUERY_NORM = 1e-3
EMBEDDING, BACKBONE, EXPERT, ROUTER, HEAD = 1, 2, 3, 4, 5  # ParameterGroup


class Rows:
    """One log's rows as tensors, from which batches are gathered."""

    def __init__(self, config, log, table_rows):
        self.features = Features(config)
        offsets = table_offsets(self.features, table_rows)
        # Ids that are looked up in one matrix stand together.
        self.ids = []
        for columns in columns_by_width(self.features).values():
            own = [offsets[self.features.owner[self.features.single[s].name].name] for s in columns]
            self.ids.append(torch.from_numpy(log["ids"][:, columns]).long() + torch.tensor(own, dtype=torch.long))
        self.numbers = torch.from_numpy(log["numbers"])
        self.missing = torch.from_numpy(log["missing"])
        self.labels = torch.from_numpy(log["labels"])
        self.bags = []
        for f in self.features.pooled:
            lengths = torch.from_numpy(log[f"lengths.{f.name}"]).long()
            flat = torch.from_numpy(log[f"bag.{f.name}"]).long() + offsets[self.features.owner[f.name].name]
            self.bags.append((flat, lengths, lengths.cumsum(0) - lengths))

    def __len__(self):
        return len(self.labels)

    def gather(self, rows):
        """The batch of the rows with these indices."""
        bags = []
        for flat, lengths, starts in self.bags:
            n = lengths.index_select(0, rows)
            offsets = n.cumsum(0) - n
            at = torch.repeat_interleave(starts.index_select(0, rows) - offsets, n)
            bags.append((flat.index_select(0, at.add_(torch.arange(len(at)))), offsets))
        numbers = missing = None
        if self.numbers.shape[1] > 0:
            numbers, missing = self.numbers.index_select(0, rows), self.missing.index_select(0, rows)
        return [ids.index_select(0, rows) for ids in self.ids], bags, numbers, missing


def columns_by_width(features):
    """{embedding width: columns of a log's ids}"""
    out = {}
    for s, f in enumerate(features.single):
        out.setdefault(features.width(f), []).append(s)
    return out


def table_offsets(features, table_rows):
    """Tables of one width stand one below the other in one matrix; where each begins."""
    offsets, used = {}, {}
    for table, rows in zip(features.tables, table_rows):
        offsets[table.name] = used.get(table.embedding_width, 0)
        used[table.embedding_width] = offsets[table.name] + rows
    return offsets


class Embedding(torch.nn.Module):
    def __init__(self, config, table_rows, sparse, plain_dropout=False):
        super().__init__()
        self.features = features = Features(config)
        self.sparse = sparse
        self.offsets = table_offsets(features, table_rows)
        self.rows = {table.name: rows for table, rows in zip(features.tables, table_rows)}
        deviation = config.optimizer.embedding_init_deviation
        height = {}
        for table, rows in zip(features.tables, table_rows):
            height[table.embedding_width] = self.offsets[table.name] + rows
        self.tables = torch.nn.ParameterDict(
            {str(d): torch.nn.Parameter(torch.randn(n, d) * deviation) for d, n in height.items()})
        with torch.no_grad():
            for table in features.tables:
                self.table(table.embedding_width)[self.offsets[table.name]] = 0  # the out-of-vocabulary row
        self.vectors = torch.nn.ParameterDict(
            {f.name: torch.nn.Parameter(torch.randn(f.embedding_width) * deviation)
             for f in features.numbers if f.embedding_width > 0})
        self.columns = columns_by_width(features)
        self.width = sum(max(features.width(f), 1) + f.numeric.missing_indicator for f in features.all)
        self.single_look_up = len(self.columns) == 1 and len(features.single) == len(features.all)

    def table(self, width):
        return self.tables[str(width)]

    def forward(self, ids, bags, numbers, missing):
        features = self.features
        found = [F.embedding(own, self.table(d), sparse=self.sparse) for d, own in zip(self.columns, ids)]
        if self.single_look_up:
            return found[0].view(len(found[0]), -1)
        single = {features.single[s].name: e for columns, embeddings in zip(self.columns.values(), found)
                  for s, e in zip(columns, embeddings.unbind(1))}
        # An empty bag gives zero.
        pooled = {f.name: F.embedding_bag(flat, self.table(features.width(f)), offsets, mode="mean", sparse=self.sparse)
                  for f, (flat, offsets) in zip(features.pooled, bags)}
        pieces, m = [], 0
        for f in features.all:
            if f.name in single:
                pieces.append(single[f.name])
            elif f.name in pooled:
                pieces.append(pooled[f.name])
            else:
                value = numbers[:, m : m + 1]
                pieces.append(value * self.vectors[f.name] if f.embedding_width > 0 else value)
                if f.numeric.missing_indicator:
                    pieces.append(missing[:, m : m + 1])
                m += 1
        return torch.cat(pieces, 1)


def dropout_mask(random, shape, rate):
    """0 with probability `rate` (in steps of 2^-16), else 1 / (1 - rate).

    Four numbers of 16 bits from each draw: F.dropout draws one by one and in one thread on the CPU, and would take a
    quarter of a step.
    """
    n = math.prod(shape)
    bits = torch.from_numpy(random.random_raw((n + 3) // 4).view(np.int16)[:n])
    keep = bits >= round(rate * 65536) - 32768
    return keep.to(torch.float32).mul_(1 / (1 - rate)).view(shape)


class ReluDropout(torch.autograd.Function):
    """ReLU and dropout in place, with one pass backward: what was dropped or negative is 0 in the output."""

    @staticmethod
    def forward(context, y, mask, scale):
        y.relu_().mul_(mask)
        context.mark_dirty(y)
        context.save_for_backward(y)
        context.scale = scale
        return y

    @staticmethod
    def backward(context, gradient):
        (y,) = context.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, y, 0).mul_(context.scale), None, None


def xavier(rows, columns):
    return torch.randn(rows, columns) * math.sqrt(2 / (rows + columns))


def orthonormal(K, D):
    q = torch.linalg.qr(torch.randn(max(K, D), min(K, D)))[0]
    return q * math.sqrt(K / D) if K > D else q.T.contiguous()


class Block(torch.nn.Module):
    def __init__(self, config, D, plain_dropout=False):
        super().__init__()
        experts, self.O = config.experts, config.width
        self.plain_dropout = plain_dropout
        self.D, self.L = D, experts.layers
        self.K = experts.experts_per_layer
        self.top_k = experts.top_k if experts.top_k < self.K else 0
        self.batch_norm, self.relu, self.dropout = config.batch_norm, config.activation == config.RELU, config.dropout
        self.calibrated = experts.routing_scale == experts.CALIBRATED
        self.hierarchical = experts.hierarchical
        self.unit_query = experts.query_norm == experts.UNIT
        O, L, K = self.O, self.L, self.K
        parameter = torch.nn.Parameter
        self.base_weight = parameter(xavier(O, D))
        if self.batch_norm:
            # The batch's own mean takes any bias away again, so that none is trained: its gradient would be rounding
            # noise, which Adam would make steps of.
            self.register_buffer("base_bias", torch.zeros(O))
            self.norm_weight, self.norm_bias = parameter(torch.ones(O)), parameter(torch.zeros(O))
            self.register_buffer("norm_running_mean", torch.zeros(O))
            self.register_buffer("norm_running_var", torch.ones(O))
        else:
            self.base_bias = parameter(torch.zeros(O))
        if L > 0:
            make_v = orthonormal if self.calibrated else xavier
            self.experts_V = parameter(torch.stack([make_v(K, D) for _ in range(L)]))
            self.experts_U = parameter(torch.zeros(L, K, O))
            scale = [torch.ones(1), torch.full((L,), 1 / math.sqrt(D)), torch.zeros(L, K)]
            for name, value in zip(("router_alpha", "router_tau", "router_c"), scale):
                if self.calibrated:
                    setattr(self, name, parameter(value))
                else:
                    self.register_buffer(name, value)

    def route(self, x, a, top_k, calibrate=False):
        """Gram routing: scores [B, L*K] and logits [(z_l)] from a = x V^T [B, L*K]."""
        L, K = self.L, self.K
        v = self.experts_V.view(L * K, self.D)
        gram = v @ v.T
        r = a * self.router_alpha
        if self.unit_query:
            r = r / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(MIN_QUERY_NORM)
        r = r.split(K, 1)
        scores, logits = [], []
        for l in range(L):
            raw = r[l]
            if l > 0 and self.hierarchical:
                before = scores[0] if l == 1 else torch.cat(scores, 1)
                raw = torch.addmm(raw, before, gram[l * K : (l + 1) * K, : l * K].T)
            if calibrate:
                self.calibrate_layer(l, raw)
            z = torch.addcmul(self.router_c[l], raw, self.router_tau[l])
            kept = z
            if top_k > 0:
                # Of equal logits the lower index wins.
                rest = z.detach().sort(dim=1, descending=True, stable=True)[1][:, top_k:]
                kept = z.scatter(1, rest, -math.inf)
            scores.append(torch.softmax(kept, 1))
            logits.append(z)
        return torch.cat(scores, 1), logits

    def calibrate_layer(self, l, raw):
        mean = raw.mean(0)
        deviation = (raw - mean).square().mean().sqrt()
        self.router_tau[l] = 1 / deviation if deviation > 0 else 1
        self.router_c[l] = -self.router_tau[l] * mean

    def forward(self, x, experts, batch_statistics, random, top_k=0, calibrate=False):
        logits = scores = None
        y = F.linear(x, self.base_weight, self.base_bias)
        if experts and self.L > 0:
            # W0 and V in one product would make y and a strided, which costs PyTorch more in copies than it saves.
            a = F.linear(x, self.experts_V.view(-1, self.D))
            if calibrate and self.calibrated:
                self.router_alpha.fill_(1 if self.unit_query else 1 / torch.linalg.vector_norm(x, dim=1).mean())
            scores, logits = self.route(x, a, top_k, calibrate and self.calibrated)
            y = torch.addmm(y, a * scores, self.experts_U.view(-1, self.O))
        if self.batch_norm:
            y = F.batch_norm(y, self.norm_running_mean, self.norm_running_var, self.norm_weight, self.norm_bias,
                             batch_statistics, 0.1, 1e-5)
        dropped = random is not None and self.dropout > 0
        if dropped and self.plain_dropout:
            y = F.dropout(torch.relu_(y) if self.relu else y, self.dropout)
        elif self.relu and dropped:
            y = ReluDropout.apply(y, dropout_mask(random, y.shape, self.dropout), 1 / (1 - self.dropout))
        elif self.relu:
            y = torch.relu_(y)
        elif dropped:
            y = y * dropout_mask(random, y.shape, self.dropout)
        return y, logits, scores


class Network(torch.nn.Module):
    def __init__(self, config, table_rows, sparse, plain_dropout=False):
        super().__init__()
        self.random = np.random.SFC64(torch.initial_seed())  # of dropout
        self.embedding = Embedding(config, table_rows, sparse)
        self.blocks = torch.nn.ModuleList()
        width = self.embedding.width
        for block in config.model.network.blocks:
            self.blocks.append(Block(block, width, plain_dropout))
            width = block.width
        self.head_weight = torch.nn.Parameter(torch.randn(1, width) * math.sqrt(2 / (width + 1)))
        self.head_bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch, experts, batch_statistics=False, training=False, top_k=None, calibrate=False):
        """Logits [B], and per block with experts its routing's (logits of each layer, scores [B, L*K])."""
        x = self.embedding(*batch)
        routing = []
        for b, block in enumerate(self.blocks):
            kept = block.top_k if top_k is None else top_k[b]
            x, logits, scores = block(x, experts, batch_statistics, self.random if training else None, kept,
                                      calibrate)
            if logits is not None:
                routing.append((logits, scores))
        return F.linear(x, self.head_weight, self.head_bias).view(-1), routing

    def groups(self):
        """Parameters by ParameterGroup."""
        out = {EMBEDDING: [], BACKBONE: [], EXPERT: [], ROUTER: [], HEAD: []}
        for name, parameter in self.named_parameters():
            module, last = name.split(".")[0], name.split(".")[-1]
            if module == "embedding":
                out[EMBEDDING].append(parameter)
            elif last.startswith("experts_"):
                out[EXPERT].append(parameter)
            elif last.startswith("router_"):
                out[ROUTER].append(parameter)
            else:
                out[BACKBONE if module == "blocks" else HEAD].append(parameter)
        return out

    def tensors(self):
        """(name in a hilomoe checkpoint, view of the values) of every tensor."""
        e = self.embedding
        for table in e.features.tables:
            begin = e.offsets[table.name]
            yield f"embedding.{table.name}.weight", e.table(table.embedding_width)[begin : begin + e.rows[table.name]]
        for name, vector in e.vectors.items():
            yield f"numeric.{name}.weight", vector
        for b, block in enumerate(self.blocks):
            for name, value in [*block.named_parameters(), *block.named_buffers()]:
                yield f"blocks.{b}.{name.replace('_', '.', 1)}", value
        yield "head.weight", self.head_weight.view(-1)
        yield "head.bias", self.head_bias

    @torch.no_grad()
    def load(self, tensors):
        """The weights of a hilomoe checkpoint: {name: array}."""
        for name, value in self.tensors():
            value.copy_(torch.from_numpy(tensors[name].copy()))
