#!/usr/bin/env python3
"""Writes a hilomoe checkpoint of a config with weights drawn from its seed, and requests to score: see README.md.

OUTPUT/checkpoint     the model: random weights, experts that contribute (U != 0), routing calibrated on the requests
OUTPUT/requests.npz   requests, encoded: per number of candidates N and R requests
                      context_numbers.N [R, numbers], context_ids.N [R, ids], candidate_ids.N [R, N, ids],
                      ids as rows of their own tables; labels drawn from the model's own probabilities
OUTPUT/requests.binpb the same as length-delimited GoldenRequest messages, in this order
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from google.protobuf.internal.encoder import _VarintBytes

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "pytorch"))

import logs
import network
from checkpoint import write_safetensors

IDS = 200_000
ZIPF_EXPONENT = 1.05
# Requests by their number of candidates: so many that a small one does not find its embeddings in the L1 cache, because
# the one before it left them there.
REQUESTS = {1: 1024, 10: 256, 100: 64, 1000: 16}
CALIBRATION_ROWS = 4096
SAMPLES = 64  # rows that golden rows are made from
EXPERT_DEVIATION = 0.5  # of U: the experts' sum is then about as large as the base's


def make_network(config):
    """Weights such that x, every block's output and the logit stay of the order of 1."""
    features = logs.Features(config)
    net = network.Network(config, [logs.RESERVED + IDS] * len(features.tables), sparse=False)
    with torch.no_grad():
        for block in net.blocks:
            if block.L > 0:
                block.experts_U.normal_(0, EXPERT_DEVIATION)
            if block.batch_norm:
                block.norm_weight.uniform_(0.75, 1.25)
                block.norm_bias.normal_(0, 0.25)
                block.norm_running_mean.normal_(0, 0.25)
                block.norm_running_var.uniform_(0.5, 1.5)
        net.head_bias.fill_(-0.5)
    return net


def draw_requests(config, random):
    """{N: (context_numbers, context_ids, candidate_ids)}; the most frequent id has the first row."""
    features = logs.Features(config)
    weights = np.arange(1, IDS + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    below = np.cumsum(weights) / weights.sum()
    ids = [sum(f.scope == scope for f in features.single) for scope in (1, 2)]

    def zipf(*shape):
        return (np.minimum(np.searchsorted(below, random.random(shape)), IDS - 1) + logs.RESERVED).astype(np.int32)

    # Multiples of 1/256 are short decimals, which the log holds exactly.
    return {N: ((random.normal(size=(R, len(features.numbers))) * 256).round().astype(np.float32) / 256,
                zipf(R, ids[0]), zipf(R, N, ids[1])) for N, R in REQUESTS.items()}


def flat_rows(requests):
    """(numbers, ids) of all candidates of all requests, the context repeated."""
    numbers, ids = [], []
    for N, (context_numbers, context_ids, candidate_ids) in requests.items():
        numbers.append(context_numbers.repeat(N, 0))
        ids.append(np.concatenate([context_ids.repeat(N, 0), candidate_ids.reshape(len(context_ids) * N, -1)], 1))
    return np.concatenate(numbers), np.concatenate(ids)


def random_ids(random, tables):
    """{table: 200,000 different 64-bit ids}: as hashes are, so that a look-up cannot guess their rows."""
    out = {}
    for table in tables:
        ids = np.unique(random.integers(-2**63, 2**63 - 1, IDS + 1000, dtype=np.int64))
        out[table.name] = random.permutation(ids)[:IDS]
    return out


def write_checkpoint(path, config, net, vocabularies, samples):
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.textproto").write_text(str(config))
    with torch.no_grad():
        write_safetensors(path / "weights.safetensors", {name: value.numpy() for name, value in net.tensors()})
    write_safetensors(path / "vocabularies.safetensors", {f"{name}.ids": ids for name, ids in vocabularies.items()})
    (path / "metrics.json").write_text('{"metrics": {}, "utilisation": []}\n')
    (path / "samples.binpb").write_bytes(samples.SerializeToString())


def make_samples(features, numbers, id_columns):
    _, model_file, _ = logs.schemas()
    samples = model_file.GoldenRequest(num_candidates=SAMPLES)
    for m, f in enumerate(features.numbers):
        samples.candidates.add(feature_id=f.id, numbers=numbers[:SAMPLES, m].tolist())
    for f, column in zip(features.single, id_columns):
        samples.candidates.add(feature_id=f.id, ids=column[:SAMPLES].tolist())
    return samples


def write_requests(path, features, requests, vocabularies):
    _, model_file, _ = logs.schemas()
    context = [f for f in features.single if f.scope == f.CONTEXT]
    candidates = [f for f in features.single if f.scope == f.CANDIDATE]
    ids_of = lambda f, rows: vocabularies[features.owner[f.name].name][rows - logs.RESERVED].tolist()
    with open(path, "wb") as file:
        for N, (numbers, context_ids, candidate_ids) in requests.items():
            for r in range(len(context_ids)):
                request = model_file.GoldenRequest(num_candidates=N)
                for m, f in enumerate(features.numbers):
                    request.context.add(feature_id=f.id, numbers=[numbers[r, m]])
                for s, f in enumerate(context):
                    request.context.add(feature_id=f.id, ids=ids_of(f, context_ids[r, s : s + 1]))
                for s, f in enumerate(candidates):
                    request.candidates.add(feature_id=f.id, ids=ids_of(f, candidate_ids[r, :, s]))
                message = request.SerializeToString()
                file.write(_VarintBytes(len(message)) + message)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="training config, a textproto")
    parser.add_argument("--output", required=True, help="directory")
    options = parser.parse_args()
    output = pathlib.Path(options.output)
    config = logs.read_config(options.config)
    features = logs.Features(config)
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)

    net = make_network(config)
    requests = draw_requests(config, random)
    numbers, ids = flat_rows(requests)
    encoded = {"ids": ids, "numbers": numbers, "missing": np.zeros_like(numbers), "labels": np.zeros(len(ids))}
    rows = network.Rows(config, encoded, [logs.RESERVED + IDS] * len(features.tables))
    with torch.no_grad():
        sample = torch.from_numpy(random.permutation(len(rows))[:CALIBRATION_ROWS])
        net(rows.gather(sample), True, calibrate=True)
        logits = torch.cat([net(rows.gather(part), True)[0] for part in torch.arange(len(rows)).split(4096)])
    scores = torch.sigmoid(logits).numpy()
    labels = (random.random(len(scores)) < scores).astype(np.int8)

    vocabularies = random_ids(random, features.tables)
    id_columns = [vocabularies[features.owner[f.name].name][ids[:, s] - logs.RESERVED]
                  for s, f in enumerate(features.single)]
    write_checkpoint(output / "checkpoint", config, net, vocabularies, make_samples(features, numbers, id_columns))
    write_requests(output / "requests.binpb", features, requests, vocabularies)
    arrays = {"labels": labels}
    for N, parts in requests.items():
        names = ("context_numbers", "context_ids", "candidate_ids")
        arrays |= {f"{name}.{N}": part for name, part in zip(names, parts)}
    np.savez(output / "requests.npz", **arrays)
    print(f"{len(scores)} rows; logits: mean {logits.mean():.2f}, deviation {logits.std():.2f}; "
          f"routing scales {[[round(t, 2) for t in block.router_tau.tolist()] for block in net.blocks if block.L]}")


if __name__ == "__main__":
    main()
