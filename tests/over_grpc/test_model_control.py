"""A client loads and unloads a model over gRPC."""

from __future__ import annotations

from pathlib import Path

import grpc

from service.grpc import inference_pb2 as pb
from tests.over_grpc.client import Client, connected, refused
from tests.server import serving
from tests.service.version_copies import repository


def states(client: Client) -> dict[str, str]:
    found = client.call("RepositoryIndex", pb.RepositoryIndexRequest()).models
    return {model.version: f"{model.state} {model.reason}".strip() for model in found}


def test_versions_come_and_go(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    settings = {"repository": "explicit", "admin_api": True, "device": "cpu", "max_batch_size": 1}
    with serving(models, grpc_port=0, **settings) as server, connected(server) as client:
        repository(models, model_repository, 2)
        assert states(client) == {"1": "READY", "2": "UNAVAILABLE unloaded"}
        client.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="xception"))
        assert states(client) == {"1": "UNAVAILABLE unloaded", "2": "READY"}
        replaced = pb.RepositoryModelLoadRequest(model_name="xception")
        replaced.parameters["config"].string_param = "{}"
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "nothing reads parameters"):
            client.call("RepositoryModelLoad", replaced)
        with refused(grpc.StatusCode.NOT_FOUND, "no model 'nobody'"):
            client.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nobody"))
        client.call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="xception"))
        assert not client.call("ModelReady", pb.ModelReadyRequest(name="xception")).ready
        assert client.call("ServerReady", pb.ServerReadyRequest()).ready
