"""The golden rows of a model file, as requests of both protocols and the scores that they must give.

As a program: golden.py MODEL_FILE DIRECTORY writes them as JSON for clients in other languages. The generated code of
proto/ must be importable.
"""

import json
import os
import struct
import sys

from google.protobuf import json_format

from hilomoe.v1 import model_config_pb2, model_file_pb2, scoring_service_pb2
from inference import grpc_inference_service_pb2 as inference


class Golden:
    """One golden request: `native`, `typed` and `raw`, `scores` and how far scores may be off."""

    def __init__(self, golden, config, tolerance):
        self.native = scoring_service_pb2.ScoreRequest(
            num_candidates=golden.num_candidates, context=golden.context, candidates=golden.candidates)
        self.typed = infer_request(self.native, config, raw=False)
        self.raw = infer_request(self.native, config, raw=True)
        self.scores = list(golden.scores)
        self.tolerance = tolerance

    def check(self, scores):
        assert len(scores) == len(self.scores), (scores, self.scores)
        for score, expected in zip(scores, self.scores):
            assert abs(score - expected) <= self.tolerance, (scores, self.scores)


def read_header(path):
    """The ModelFileHeader; its place is told by model_file.proto."""
    with open(path, "rb") as file:
        magic, _, _, size, _ = struct.unpack("<8sIIQQ", file.read(32))
        assert magic == b"HILOMOE\n", magic
        return model_file_pb2.ModelFileHeader.FromString(file.read(size))


def read_golden(path):
    header = read_header(path)
    return [Golden(golden, header.config, header.golden_tolerance) for golden in header.golden]


def split(column):
    """The strings of a column."""
    begin = 0
    for size in column.string_bytes:
        yield column.strings[begin:begin + size]
        begin += size


def infer_request(native, config, raw):
    features = {feature.id: feature for feature in config.features}
    request = inference.ModelInferRequest(model_name=native.model)

    def add(name, datatype, shape, field, values, pack):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw:
            request.raw_input_contents.append(pack(values))
        else:
            getattr(tensor.contents, field).extend(values)

    def pack_as(code):
        return lambda values: struct.pack("<%d%s" % (len(values), code), *values)

    def pack_strings(values):
        return b"".join(struct.pack("<I", len(value)) + value for value in values)

    columns = [(column, 1) for column in native.context]
    columns += [(column, native.num_candidates) for column in native.candidates]
    for column, rows in columns:
        feature = features[column.feature_id]
        count = [sum(column.row_lengths) if column.row_lengths else rows]
        if feature.kind == model_config_pb2.Feature.NUMERIC:
            add(feature.name, "FP32", count, "fp32_contents", list(column.numbers), pack_as("f"))
        elif feature.id_type == model_config_pb2.Feature.STRING:
            add(feature.name, "BYTES", count, "bytes_contents", list(split(column)), pack_strings)
        else:
            add(feature.name, "INT64", count, "int64_contents", list(column.ids), pack_as("q"))
        if column.row_lengths:
            add(feature.name + ".lengths", "INT32", [rows], "int_contents", list(column.row_lengths), pack_as("i"))
    return request


def main():
    path, directory = sys.argv[1:]
    for i, golden in enumerate(read_golden(path)):
        for name in ("native", "typed", "raw"):
            with open(os.path.join(directory, "%s%d.json" % (name, i)), "w") as file:
                file.write(json_format.MessageToJson(getattr(golden, name)))
        with open(os.path.join(directory, "scores%d.json" % i), "w") as file:
            json.dump({"scores": golden.scores, "tolerance": golden.tolerance}, file)


if __name__ == "__main__":
    main()
