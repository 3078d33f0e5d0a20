"""The model that Triton's Python backend runs: the session that the service would use, in Triton's own process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from service.inference.manifest import read_manifest
from service.inference.placement import place
from service.settings import Settings


class TritonPythonModel:
    """Triton makes one of this name and calls its methods."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the version that Triton names in the model repository of the settings."""
        settings = Settings()
        folder = settings.model_repository / args["model_name"] / args["model_version"]
        self._session = place(folder, read_manifest(folder), settings).sessions[0]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run the requests of one batch together, and answer each."""
        # Over DLPack: pytriton's Python backend was built for NumPy 1, and misreads the size of NumPy 2's elements.
        images = [np.from_dlpack(triton.get_input_tensor_by_name(request, "images")) for request in requests]
        probabilities = self._session.run(np.concatenate(images))
        answers = np.split(probabilities, np.cumsum([len(some) for some in images])[:-1])
        return [triton.InferenceResponse([triton.Tensor.from_dlpack("probabilities", answer)]) for answer in answers]
