"""hilomoe's checkpoints: weights and vocabularies (model/checkpoint.h tells what stands where)."""

import json

import numpy as np

from logs import Vocabulary

DTYPES = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}


def read_safetensors(path):
    """{name: array}: 8 bytes with the header's length, a JSON header, the tensors' bytes."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = file.read()
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        out[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return out


def write_safetensors(path, tensors):
    """tensors: {name: array of a type in DTYPES}"""
    names = {np.dtype(t): name for name, t in DTYPES.items()}
    header, end = {}, 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def read_vocabularies(path, tables):
    tensors = read_safetensors(path)
    out = {}
    for table in tables:
        if f"{table.name}.ids" in tensors:
            ids = tensors[f"{table.name}.ids"].tolist()
        else:
            text = tensors[f"{table.name}.bytes"].tobytes()
            ends = tensors[f"{table.name}.ends"].tolist()
            ids = [text[begin:end].decode() for begin, end in zip([0, *ends], ends)]
        out[table.name] = Vocabulary(table, ids)
    return out
