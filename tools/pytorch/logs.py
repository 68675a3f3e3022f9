"""Training configs and logs as tensors: the same rows, vocabularies and transforms as hilomoe-train's."""

import csv
import gzip
import hashlib
import importlib
import itertools
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT_OF_VOCABULARY, MISSING, RESERVED = 0, 1, 2
CHUNK_ROWS = 1 << 16
FORMAT = 1  # of the cache; part of its files' names


def schemas():
    """The modules of proto/hilomoe/v1, as protoc writes them: (training_config_pb2, model_file_pb2, text_format)."""
    from google.protobuf import text_format

    with tempfile.TemporaryDirectory() as out:
        names = [f"hilomoe/v1/{name}.proto" for name in ("column", "model_config", "model_file", "training_config")]
        subprocess.run(["protoc", f"--proto_path={ROOT / 'proto'}", f"--python_out={out}", *names], check=True)
        sys.path.insert(0, out)
        try:
            training_config, model_file = (importlib.import_module(f"hilomoe.v1.{name}_pb2")
                                           for name in ("training_config", "model_file"))
            return training_config, model_file, text_format
        finally:
            sys.path.remove(out)


def read_config(path):
    messages, _, text_format = schemas()
    config = text_format.Parse(pathlib.Path(path).read_text(), messages.TrainingConfig())
    refuse_unknown(config, messages)
    return config


def refuse_unknown(config, messages):
    """Ends the program when the config asks for something that this twin does not have."""
    network, data = config.model.network, config.data
    unknown = {
        "attention": network.attention,
        "cross layers": network.cross,
        "linear": network.linear,
        "sample weights": data.weight,
        "negative_keep_rate": data.negative_keep_rate != 1,
        "ROWWISE_ADAGRAD": config.optimizer.embedding_update == messages.Optimizer.ROWWISE_ADAGRAD,
        "monitor GAUC": config.monitor == messages.TrainingConfig.GAUC,
        "hash_buckets": any(f.vocabulary.hash_buckets for f in config.model.features),
        "QUANTILE": any(f.numeric.transform == f.numeric.QUANTILE for f in config.model.features),
        "pooling NONE": any(f.pooling == f.NONE for f in config.model.features),
        "activations but RELU and IDENTITY": any(b.activation > 1 for b in network.blocks),
        "query_projection": any(b.experts.query_projection for b in network.blocks),
    }
    asked = [name for name, value in unknown.items() if value]
    if asked:
        sys.exit(f"the PyTorch twin has no {', '.join(asked)}")


class Features:
    """A config's features in the order of the network's input: those of the context, then the candidate's."""

    def __init__(self, config):
        features = config.model.features
        by_name = {f.name: f for f in features}
        self.all = [f for scope in (1, 2) for f in features if f.scope == scope]
        self.single = [f for f in self.all if f.kind == f.CATEGORICAL]
        self.pooled = [f for f in self.all if f.kind in (f.BAG, f.SEQUENCE)]
        self.numbers = [f for f in self.all if f.kind == f.NUMERIC]
        self.owner = {f.name: by_name[f.share_embedding or f.name] for f in self.single + self.pooled}
        # Of the features that own a table, in the order of the config.
        self.tables = [f for f in features if f.kind != f.NUMERIC and not f.share_embedding]

    def width(self, feature):
        return self.owner[feature.name].embedding_width if feature.name in self.owner else feature.embedding_width


class Vocabulary:
    """Cells of a log -> rows of a table."""

    def __init__(self, owner, ids):
        self.parse = int if owner.id_type == owner.INT64 else str
        self.row = {key: RESERVED + i for i, key in enumerate(ids)}
        self.cells = {"": MISSING}

    def __getitem__(self, cell):
        row = self.cells.get(cell)
        if row is None:
            row = self.cells[cell] = self.row.get(self.parse(cell), OUT_OF_VOCABULARY)
        return row

    @property
    def rows(self):
        return RESERVED + len(self.row)


class CellCodes(dict):
    """Cells -> numbers in the order of their first appearance, while a vocabulary is not yet known."""

    def __missing__(self, cell):
        code = self[cell] = len(self)
        return code


def build_vocabulary(owner, codes, counts):
    """As hilomoe's VocabularyBuilder: the most frequent first, equal counts in ascending order of id."""
    parse = int if owner.id_type == owner.INT64 else str
    count_of = {}
    for cell, code in codes.items():
        if cell != "" and counts[code]:
            count_of[parse(cell)] = count_of.get(parse(cell), 0) + int(counts[code])
    order = (lambda i: (-count_of[i], i.encode())) if parse is str else (lambda i: (-count_of[i], i))
    ids = sorted((i for i, n in count_of.items() if n >= owner.vocabulary.min_count), key=order)
    if owner.vocabulary.max_size:
        ids = ids[: owner.vocabulary.max_size]
    return Vocabulary(owner, ids)


def open_log(path):
    """(lines, process that writes them or None)"""
    if path.endswith(".zst"):
        process = subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE, encoding="utf-8")
        return process.stdout, process
    return (gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")), None


def chunks(paths, columns):
    """The named columns of the logs, some ten thousand rows at a time."""
    for path in paths:
        lines, process = open_log(path)
        tab = ".tsv" in pathlib.Path(path).suffixes
        reader = csv.reader(lines, delimiter="\t" if tab else ",", quoting=csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL)
        header = next(reader)
        at = [header.index(name) for name in columns]
        while rows := list(itertools.islice(reader, CHUNK_ROWS)):
            every = list(zip(*rows))
            yield [every[i] for i in at]
        lines.close()
        if process is not None and process.wait() != 0:
            sys.exit(f"zstd cannot read '{path}'")


def encode_bags(feature, cells, row_of):
    """Rows of one chunk's bags one after another, and how many each has. A log repeats its histories."""
    memo = {}
    for cell in cells:
        if cell not in memo:
            ids = [i for i in cell.split("^") if i != ""]
            n = feature.max_length
            memo[cell] = [row_of[i] for i in (ids[-n:] if feature.kind == feature.SEQUENCE else ids[:n])]
    bags = [memo[cell] for cell in cells]
    lengths = np.fromiter(map(len, bags), np.int32, len(bags))
    flat = np.fromiter(itertools.chain.from_iterable(bags), np.int32, int(lengths.sum()))
    return flat, lengths


def read_rows(config, paths, row_of):
    """One log: {labels, ids [N, S], lengths.NAME, bag.NAME, numbers [N, M] (NaN: missing)}, with row_of by table."""
    features = Features(config)
    names = [f.name for f in features.single + features.pooled + features.numbers]
    parts = []
    for label, *columns in chunks(paths, [config.data.label, *names]):
        column = dict(zip(names, columns))
        n = len(label)
        part = {"labels": np.fromiter(map(float, label), np.float32, n)}
        ids = np.empty((n, len(features.single)), np.int32)
        for s, f in enumerate(features.single):
            table = row_of[features.owner[f.name].name]
            ids[:, s] = np.fromiter((table[cell] for cell in column[f.name]), np.int32, n)
        part["ids"] = ids
        for f in features.pooled:
            part[f"bag.{f.name}"], part[f"lengths.{f.name}"] = encode_bags(
                f, column[f.name], row_of[features.owner[f.name].name])
        numbers = np.empty((n, len(features.numbers)), np.float32)
        for m, f in enumerate(features.numbers):
            numbers[:, m] = np.fromiter((float(c) if c else math.nan for c in column[f.name]), np.float32, n)
        part["numbers"] = numbers
        parts.append(part)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def read_training_rows(config, paths):
    """The training log, its vocabularies by table, and [M, 2] (mean, 1 / deviation) of its numbers."""
    features = Features(config)
    codes = {t.name: CellCodes() for t in features.tables}
    log = read_rows(config, paths, codes)
    vocabularies = {}
    for table in features.tables:
        own = codes[table.name]
        singles = [s for s, f in enumerate(features.single) if features.owner[f.name].name == table.name]
        bags = [f"bag.{f.name}" for f in features.pooled if features.owner[f.name].name == table.name]
        counts = sum(np.bincount(values, minlength=len(own))
                     for values in [log["ids"][:, s] for s in singles] + [log[b] for b in bags])
        vocabulary = vocabularies[table.name] = build_vocabulary(table, own, counts)
        rows = np.fromiter((vocabulary[cell] for cell in own), np.int32, len(own))
        for s in singles:
            log["ids"][:, s] = rows[log["ids"][:, s]]
        for b in bags:
            log[b] = rows[log[b]]
    mean = np.nanmean(log["numbers"].astype(np.float64), axis=0)
    deviation = np.nanstd(log["numbers"].astype(np.float64), axis=0)
    return log, vocabularies, np.stack([mean, 1 / np.where(deviation > 1e-38, deviation, 1)], 1).astype(np.float32)


def transform_numbers(config, numbers, standardise):
    """(values [N, M], missing [N, M]) of raw numbers; a missing one is 0 after the transform."""
    missing = np.isnan(numbers)
    values = numbers.copy()
    for m, f in enumerate(Features(config).numbers):
        x = values[:, m]
        if f.numeric.transform == f.numeric.LOG1P:
            values[:, m] = np.sign(x) * np.log1p(np.abs(x))
        elif f.numeric.transform == f.numeric.STANDARDISE:
            values[:, m] = (x - standardise[m, 0]) * standardise[m, 1]
    values[missing] = 0
    return values, missing.astype(np.float32)


def load(config, data_dir, cache_dir):
    """{train, valid, test} as read_rows with numbers transformed and `missing` beside them, and the tables' rows."""
    data = config.data
    paths = {split: [os.path.join(data_dir, p) for p in getattr(data, split)] for split in ("train", "valid", "test")}
    cached = None
    if cache_dir:
        made_of = [FORMAT, data.label, [f.SerializeToString(deterministic=True) for f in config.model.features]]
        made_of += [(p, os.stat(p).st_size, os.stat(p).st_mtime_ns) for split in paths.values() for p in split]
        cached = pathlib.Path(cache_dir) / f"{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.npz"
        if cached.exists():
            logs = {"train": {}, "valid": {}, "test": {}}
            with np.load(cached) as file:
                for key in file.files:
                    if key != "table_rows":
                        split, name = key.split("/", 1)
                        logs[split][name] = file[key]
                return logs, file["table_rows"].tolist()
    logs = {}
    logs["train"], vocabularies, standardise = read_training_rows(config, paths["train"])
    for split in ("valid", "test"):
        logs[split] = read_rows(config, paths[split], vocabularies)
    for log in logs.values():
        log["numbers"], log["missing"] = transform_numbers(config, log["numbers"], standardise)
    table_rows = [vocabularies[t.name].rows for t in Features(config).tables]
    if cached is not None:
        cached.parent.mkdir(parents=True, exist_ok=True)
        half_written = cached.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(half_written, table_rows=np.array(table_rows),
                 **{f"{split}/{name}": values for split, log in logs.items() for name, values in log.items()})
        half_written.rename(cached)
    return logs, table_rows
