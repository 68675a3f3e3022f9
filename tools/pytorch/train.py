#!/usr/bin/env python3
"""Trains a training config's network with PyTorch, as hilomoe-train does: see README.md."""

import argparse
import copy
import ctypes
import json
import math
import os
import pathlib
import sys
import time

EVALUATION_ROWS = 8192
CALIBRATION_ROWS = 4096
IMPROVEMENT = 1e-6
CHECK_BOUND = 1e-5


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="training config, a textproto")
    parser.add_argument("--data_dir", default=".", help="directory that the config's log paths are relative to")
    parser.add_argument("--cache_dir", default="", help="directory for the encoded logs; empty: parse them every time")
    parser.add_argument("--output", default="", help="file for the results, one JSON line")
    parser.add_argument("--seed", type=int, default=0, help="0: the config's")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as this process may use")
    parser.add_argument("--epochs", type=int, default=0, help="> 0: every stage takes so many, whatever its patience")
    parser.add_argument("--max_rows", type=int, default=0, help="> 0: only the first so many training rows")
    parser.add_argument("--dense_embeddings", action="store_true", help="DENSE updates, whatever the config says")
    parser.add_argument("--bfloat16", action="store_true", help="training steps in torch.autocast of bfloat16")
    parser.add_argument("--plain_dropout", action="store_true", help="F.dropout, as it is commonly written; slower")
    parser.add_argument("--write_config", default="", help="file for the config with --epochs in it; trains nothing")
    parser.add_argument("--check_checkpoint", default="", help="a hilomoe checkpoint whose scores are compared")
    parser.add_argument("--scores", default="", help="what hilomoe-train evaluate --scores wrote for --log")
    parser.add_argument("--log", default="", help="the log they are of; empty: the config's test log")
    return parser.parse_args()


if __name__ == "__main__":
    ARGUMENTS = arguments()
    ARGUMENTS.threads = ARGUMENTS.threads or len(os.sched_getaffinity(0))
    # OpenBLAS has threads of its own, which torch.set_num_threads does not reach; OpenMP's must not spin beside them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(ARGUMENTS.threads))
    os.environ.setdefault("OMP_NUM_THREADS", str(ARGUMENTS.threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch.nn import functional as F

import logs
import network
from checkpoint import read_safetensors, read_vocabularies
from network import BACKBONE, EMBEDDING, EXPERT, ROUTER


def auc(scores, labels):
    """Ties count half: the mean rank of each group of equal scores."""
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[group]
    positives = int(labels.sum())
    negatives = len(labels) - positives
    return float((ranks[labels > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def evaluate(net, rows, experts):
    with torch.no_grad():
        logits = torch.cat([net(rows.gather(torch.arange(begin, min(begin + EVALUATION_ROWS, len(rows)))), experts)[0]
                            for begin in range(0, len(rows), EVALUATION_ROWS)])
    z, labels = logits.double(), rows.labels.double()
    scores = torch.sigmoid(z).float().numpy()
    return {"auc": auc(scores, rows.labels.numpy()),
            "logloss": float(F.binary_cross_entropy_with_logits(z, labels))}, scores


def schedule_factor(stage, step, total):
    """As ScheduleFactor of tools/train/schedule.h."""
    warmup = stage.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    if stage.decay == stage.CONSTANT or total <= warmup:
        return 1.0
    done = min(1.0, (step - warmup) / (total - warmup))
    left = 1 - done if stage.decay == stage.LINEAR else (1 + math.cos(math.pi * done)) / 2
    return stage.final_rate + (1 - stage.final_rate) * left


def annealed_top_k(block, stage, step):
    if block.top_k == 0 or step >= stage.top_k_anneal_steps:
        return block.top_k
    kept = block.K - int((block.K - block.top_k) * (step + 1) / stage.top_k_anneal_steps)
    return kept if kept < block.K else 0


def stage_batches(config, index, batches):
    """As StageBatches of tools/train/schedule.h."""
    if not config.one_pass:
        return 0, batches
    before = sum(stage.share for stage in config.stages[:index])
    first, last = (int(math.floor(min(1.0, share) * batches + 0.5))
                   for share in (before, before + config.stages[index].share))
    first = min(first, batches - 1)
    return first, max(last, first + 1)


class Optimizer:
    """Adam with clipping by global norm and L2 on the embeddings; a learning rate per group.

    LAZY is torch.optim.SparseAdam, which moves the touched rows only, with a step count of the whole table, as
    hilomoe's does. It differs in two things: epsilon is added before the second moment's bias is corrected (larger
    by 1 / sqrt(1 - beta2^t)), and it knows no L2, which is therefore added to the gradient here.
    """

    def __init__(self, config, net, stage):
        self.config, self.stage = config, stage
        groups = net.groups()
        rates = {rate.group: rate.learning_rate for rate in stage.train
                 if stage.experts or rate.group not in (EXPERT, ROUTER)}
        for group, parameters in groups.items():
            for parameter in parameters:
                parameter.requires_grad_(group in rates)
                parameter.grad = None
        self.embeddings = groups[EMBEDDING] if EMBEDDING in rates else []
        tables = {id(p) for p in net.embedding.tables.values()} if net.embedding.sparse else set()
        same = {"betas": (config.beta1, config.beta2), "eps": config.epsilon}
        self.optimizers = []
        for sparse, make in ((False, lambda g: torch.optim.Adam(g, foreach=True, **same)),
                             (True, lambda g: torch.optim.SparseAdam(g, **same))):
            chosen = [{"params": [p for p in groups[group] if (id(p) in tables) == sparse], "lr": rate, "rate": rate}
                      for group, rate in rates.items()]
            chosen = [group for group in chosen if group["params"]]
            if chosen:
                self.optimizers.append(make(chosen))
        self.parameters = [p for o in self.optimizers for group in o.param_groups for p in group["params"]]

    def step(self, factor):
        l2, clip = self.config.embedding_l2, self.config.gradient_clip_norm
        with torch.no_grad():
            values = []
            for p in self.parameters:
                if p.grad is not None and p.grad.is_sparse:
                    p.grad = p.grad.coalesce()
            for p in self.embeddings if l2 > 0 else []:
                if not p.grad.is_sparse:
                    p.grad.add_(p, alpha=l2)
                else:
                    p.grad._values().add_(p[p.grad._indices()[0]], alpha=l2)
            for p in self.parameters:
                if p.grad is not None:
                    values.append(p.grad._values() if p.grad.is_sparse else p.grad)
            if clip > 0:
                norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(values))))
                if norm > clip:
                    torch._foreach_mul_(values, clip / (norm + 1e-6))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = max(group["rate"] * factor, self.stage.min_learning_rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def routing_loss(losses, net, routing, ramp):
    """The terms of HiLoMoE beside the cross-entropy, over all blocks and layers; None when there are none."""
    total = None
    w_lb, w_z, w_div = (ramp * w for w in (losses.load_balance, losses.router_z, losses.diversity))
    blocks = [block for block in net.blocks if block.L > 0]
    for block, (logits, scores) in zip(blocks, routing):
        K, kept = block.K, scores.detach().view(len(scores), block.L, block.K) > 0 if block.top_k else None
        for l, z in enumerate(logits):
            terms = []
            if w_lb:
                dense = block.top_k == 0
                p = (scores[:, l * K : (l + 1) * K] if dense else torch.softmax(z, 1)).mean(0)
                f = p if dense else kept[:, l].float().mean(0) / block.top_k
                terms.append(w_lb * K * torch.dot(f, p))
            if w_z:
                terms.append(w_z * (torch.logsumexp(z, 1) - math.log(K)).square().mean())
            if w_div:
                unit = F.normalize(block.experts_V[l], dim=1, eps=1e-30)
                cosine = unit @ unit.T
                terms.append(w_div * (cosine - torch.diag(cosine.diagonal())).square().sum() / max(1, K * (K - 1)))
            for term in terms:
                total = term if total is None else total + term
    return total


class Trainer:
    def __init__(self, config, net, rows, seed, bfloat16=False):
        self.config, self.net, self.rows, self.seed, self.bfloat16 = config, net, rows, seed, bfloat16
        self.calibrated = False
        self.trained_rows, self.seconds, self.epochs = 0, 0.0, []

    def order(self, stage, epoch):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + stage * 1009 + epoch)
        return torch.randperm(len(self.rows["train"]), generator=generator)

    def monitored(self, metrics):
        return metrics["auc"] if self.config.monitor == self.config.AUC else -metrics["logloss"]

    def run(self):
        for index, stage in enumerate(self.config.stages):
            if stage.experts and not self.calibrated:
                with torch.no_grad():
                    sample = self.rows["train"].gather(self.order(997, 0)[:CALIBRATION_ROWS])
                    self.net(sample, True, calibrate=True)
                self.calibrated = True
            self.run_stage(index, stage)

    def run_stage(self, index, stage):
        net, config, train = self.net, self.config, self.rows["train"]
        optimizer = Optimizer(config.optimizer, net, stage)
        B, n = config.batch_size, len(train)
        batches = (n + B - 1) // B
        if n % B == 1:
            batches -= 1  # PyTorch's batch norm refuses a batch of one row
        first, last = stage_batches(config, index, batches)
        epochs = 1 if config.one_pass else stage.epochs
        metrics, _ = evaluate(net, self.rows["valid"], stage.experts)
        best = self.monitored(metrics)
        best_weights = copy.deepcopy(net.state_dict())
        print(f"stage {stage.name}: starts at valid AUC {metrics['auc']:.5f}", file=sys.stderr)
        backbone = any(rate.group == BACKBONE for rate in stage.train)
        step, rate_factor, worse, over, count = 0, 1.0, 0, False, last - first
        for epoch in range(epochs):
            order = None
            epoch_seconds, epoch_rows = 0.0, 0
            start = time.perf_counter()
            for done, batch in enumerate(range(first, last), 1):
                if order is None:
                    # One pass is one order of rows, whatever the stage.
                    order = self.order(0 if config.one_pass else index + 1, epoch)
                at = order[batch * B : (batch + 1) * B]
                self.train_step(stage, optimizer, train, at, backbone, step,
                                rate_factor * schedule_factor(stage, step, epochs * count))
                step += 1
                epoch_rows += len(at)
                E = stage.evaluations_per_epoch
                if done * E // count == (done - 1) * E // count:
                    continue
                epoch_seconds += time.perf_counter() - start
                metrics, _ = evaluate(net, self.rows["valid"], stage.experts)
                if self.monitored(metrics) > best + IMPROVEMENT:
                    best, best_weights, worse = self.monitored(metrics), copy.deepcopy(net.state_dict()), 0
                else:
                    rate_factor *= stage.plateau_factor
                    worse += 1
                    over = worse >= stage.patience
                start = time.perf_counter()
                if over:
                    break
            self.trained_rows += epoch_rows
            self.seconds += epoch_seconds
            self.epochs.append({"stage": stage.name, "epoch": epoch + 1, "rows_per_s": epoch_rows / epoch_seconds,
                                "valid_auc": metrics["auc"]})
            print(f"{stage.name} epoch {epoch + 1}: {epoch_rows / epoch_seconds:,.0f} rows/s, "
                  f"valid AUC {metrics['auc']:.5f}", file=sys.stderr, flush=True)
            if over:
                break
        net.load_state_dict(best_weights)

    def train_step(self, stage, optimizer, train, at, backbone, step, factor):
        net, losses = self.net, self.config.losses
        top_k = [annealed_top_k(block, stage, step) for block in net.blocks]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            logits, routing = net(train.gather(at), stage.experts, backbone, True, top_k)
        loss = F.binary_cross_entropy_with_logits(logits.float(), train.labels.index_select(0, at))
        ramp = min(1.0, step / losses.ramp_steps) if losses.ramp_steps else 1.0
        more = routing_loss(losses, net, routing, ramp)
        (loss if more is None else loss + more).backward()
        optimizer.step(factor)


def check_checkpoint(options):
    """Scores a log with a hilomoe checkpoint's weights; ends with 1 when hilomoe's own scores differ."""
    directory = pathlib.Path(options.check_checkpoint)
    config = logs.read_config(directory / "config.textproto")
    features = logs.Features(config)
    tensors = read_safetensors(directory / "weights.safetensors")
    vocabularies = read_vocabularies(directory / "vocabularies.safetensors", features.tables)
    test = [options.log] if options.log else [os.path.join(options.data_dir, path) for path in config.data.test]
    log = logs.read_rows(config, test, vocabularies)
    standardise = np.array([tensors.get(f"numeric.{f.name}.standardise", [0, 1]) for f in features.numbers], np.float32)
    log["numbers"], log["missing"] = logs.transform_numbers(config, log["numbers"], standardise)
    table_rows = [vocabularies[t.name].rows for t in features.tables]
    net = network.Network(config, table_rows, sparse=False)
    net.load(tensors)
    metrics, scores = evaluate(net, network.Rows(config, log, table_rows), experts=True)
    theirs = np.loadtxt(options.scores, delimiter=",", skiprows=1, usecols=0, ndmin=1)
    if len(theirs) != len(scores):
        sys.exit(f"{len(theirs)} scores in '{options.scores}', {len(scores)} rows in the log")
    largest = float(np.abs(theirs - scores).max())
    print(json.dumps({"rows": len(scores), "largest_difference": largest, "bound": CHECK_BOUND, **metrics}))
    sys.exit(0 if largest <= CHECK_BOUND else 1)


def keep_freed_memory():
    """Else glibc gives a step's large tensors back to the system, and every step pays for their pages anew."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def main(options):
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if options.check_checkpoint:
        check_checkpoint(options)
    if not options.config:
        sys.exit("--config: say the training config")
    config = logs.read_config(options.config)
    if options.epochs > 0:
        for stage in config.stages:
            stage.epochs = options.epochs
            stage.patience = options.epochs * stage.evaluations_per_epoch + 1
    if options.write_config:
        pathlib.Path(options.write_config).write_text(str(config))
        return
    seed = options.seed or config.seed
    torch.manual_seed(seed)
    encoded, table_rows = logs.load(config, options.data_dir, options.cache_dir)
    rows = {split: network.Rows(config, log, table_rows) for split, log in encoded.items()}
    if options.max_rows > 0:
        train = rows["train"]
        train.labels = train.labels[: options.max_rows]
    lazy = config.optimizer.embedding_update == config.optimizer.LAZY and not options.dense_embeddings
    net = network.Network(config, table_rows, lazy, options.plain_dropout)
    trainer = Trainer(config, net, rows, seed, options.bfloat16)
    trainer.run()
    experts = any(stage.experts for stage in config.stages)
    results = {"config": options.config, "seed": seed, "threads": options.threads, "torch": torch.__version__}
    for split in ("valid", "test"):
        metrics, _ = evaluate(net, rows[split], experts)
        results |= {f"{split}_{name}": value for name, value in metrics.items()}
    results |= {"rows_per_s": trainer.trained_rows / trainer.seconds, "seconds": trainer.seconds,
                "epochs": trainer.epochs}
    line = json.dumps(results)
    print(line)
    if options.output:
        pathlib.Path(options.output).write_text(line + "\n")


if __name__ == "__main__":
    main(ARGUMENTS)
