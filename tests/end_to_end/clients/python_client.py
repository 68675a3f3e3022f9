"""Talks to a server with grpcio and protoc's code: python_client.py ADDRESS MODEL_FILE SERVER_PID.

Ends the server with SIGTERM; it must have been started with a drain of some seconds.
"""

import os
import signal
import struct
import sys
import threading

import grpc
from google.protobuf import descriptor_pb2

from golden import read_golden, read_header
from health.v1 import health_pb2, health_pb2_grpc
from hilomoe.v1 import scoring_service_pb2 as scoring, scoring_service_pb2_grpc
from inference import grpc_inference_service_pb2 as inference, grpc_inference_service_pb2_grpc
from reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

TIMEOUT = 60
SERVICES = ["hilomoe.v1.ScoringService", "inference.GRPCInferenceService"]


def refused(code, text, rpc, request):
    try:
        rpc(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        assert error.code() == code, error
        assert text in error.details(), error
    else:
        raise AssertionError("accepted: %s" % request)


def infer_scores(response):
    (output,) = response.outputs
    assert output.name == "scores" and output.datatype == "FP32", output
    if response.raw_output_contents:
        scores = list(struct.unpack("<%df" % output.shape[0], response.raw_output_contents[0]))
    else:
        scores = list(output.contents.fp32_contents)
    assert list(output.shape) == [len(scores)], output
    return scores


def check_scoring(native, v2, golden):
    for row in golden:
        response = native.Score(row.native, timeout=TIMEOUT)
        assert (response.model, response.version) == ("ctr", 1), response
        row.check(response.scores)
        for request, raw in ((row.typed, False), (row.raw, True)):
            request.id = "request"
            answer = v2.ModelInfer(request, timeout=TIMEOUT)
            assert (answer.model_name, answer.model_version, answer.id) == ("ctr", "1", "request"), answer
            assert bool(answer.raw_output_contents) == raw, answer
            assert infer_scores(answer) == list(response.scores), (answer, response)
    streamed = native.ScoreStream((row.native for row in golden), timeout=TIMEOUT)
    for row, response in zip(golden, streamed):
        assert response.code == 0, response
        row.check(response.scores)


def check_errors(native, v2, golden):
    code = grpc.StatusCode
    wrong = inference.ModelInferRequest()
    wrong.CopyFrom(golden.typed)
    wrong.inputs[0].datatype = "FP8"
    refused(code.INVALID_ARGUMENT, "'" + wrong.inputs[0].name + "'", v2.ModelInfer, wrong)
    wrong.CopyFrom(golden.raw)
    wrong.inputs[0].shape[0] = 7
    refused(code.INVALID_ARGUMENT, "'" + wrong.inputs[0].name + "'", v2.ModelInfer, wrong)
    wrong.CopyFrom(golden.raw)
    wrong.model_version = "nightly"
    refused(code.NOT_FOUND, "nightly", v2.ModelInfer, wrong)
    refused(code.NOT_FOUND, "other", native.Score, scoring.ScoreRequest(model="other"))
    refused(code.PERMISSION_DENIED, "admin", v2.RepositoryModelLoad,
            inference.RepositoryModelLoadRequest(model_name="ctr"))


def check_metadata(native, v2, header):
    assert v2.ServerLive(inference.ServerLiveRequest(), timeout=TIMEOUT).live
    assert v2.ServerReady(inference.ServerReadyRequest(), timeout=TIMEOUT).ready
    assert v2.ModelReady(inference.ModelReadyRequest(name="ctr", version="1"), timeout=TIMEOUT).ready
    assert not v2.ModelReady(inference.ModelReadyRequest(name="ctr", version="2"), timeout=TIMEOUT).ready
    assert v2.ServerMetadata(inference.ServerMetadataRequest(), timeout=TIMEOUT).name == "hilomoe"
    metadata = v2.ModelMetadata(inference.ModelMetadataRequest(name="ctr"), timeout=TIMEOUT)
    names = [tensor.name for tensor in metadata.inputs if not tensor.name.endswith(".lengths")]
    assert names == [feature.name for feature in header.config.features], metadata
    assert [tensor.name for tensor in metadata.outputs] == ["scores"], metadata
    index = v2.RepositoryIndex(inference.RepositoryIndexRequest(ready=True), timeout=TIMEOUT)
    assert [(model.name, model.version, model.state) for model in index.models] == [("ctr", "1", "READY")], index
    model = native.GetModel(scoring.GetModelRequest(), timeout=TIMEOUT)
    assert model.config == header.config, model
    assert [(version.version, version.state) for version in model.versions] == [(1, "AVAILABLE")], model


def check_reflection(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**request):
        (response,) = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=TIMEOUT)
        return response

    listed = [service.name for service in ask(list_services="*").list_services_response.service]
    for name in SERVICES:
        assert name in listed, listed
        described = ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto
        files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in described]
        assert any(file.package + "." + service.name == name for file in files for service in file.service), name


def check_health_and_drain(channel, native, golden, pid):
    """A client that watches health loses nothing when the server ends."""
    health = health_pb2_grpc.HealthStub(channel)
    states = health_pb2.HealthCheckResponse
    for service in [""] + SERVICES:
        request = health_pb2.HealthCheckRequest(service=service)
        assert health.Check(request, timeout=TIMEOUT).status == states.SERVING, service
    refused(grpc.StatusCode.NOT_FOUND, "", health.Check, health_pb2.HealthCheckRequest(service="other"))
    seen, serving, ended = [], threading.Event(), threading.Event()

    def watch():
        try:
            for response in health.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]), timeout=TIMEOUT):
                seen.append(response.status)
                (serving if response.status == states.SERVING else ended).set()
        except grpc.RpcError:
            pass  # the server's end ends it

    thread = threading.Thread(target=watch)
    thread.start()
    assert serving.wait(TIMEOUT)
    os.kill(pid, signal.SIGTERM)
    assert ended.wait(TIMEOUT)
    golden.check(native.Score(golden.native, timeout=TIMEOUT).scores)  # still served
    thread.join()
    assert seen == [states.SERVING, states.NOT_SERVING], seen


def main():
    address, path, pid = sys.argv[1:]
    golden, header = read_golden(path), read_header(path)
    with grpc.insecure_channel(address) as channel:
        native = scoring_service_pb2_grpc.ScoringServiceStub(channel)
        v2 = grpc_inference_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        check_scoring(native, v2, golden)
        check_errors(native, v2, golden[0])
        check_metadata(native, v2, header)
        check_reflection(channel)
        check_health_and_drain(channel, native, golden[0], int(pid))


if __name__ == "__main__":
    main()
