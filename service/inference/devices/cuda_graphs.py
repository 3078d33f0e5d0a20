"""CUDA graphs: the kernels of a batch recorded once and then launched as one, which spares the CPU every launch.

What onnxruntime asks for:
- A graph reads and writes where it did when it was recorded. So each batch size has arrays of its own on the device.
- A graph belongs to the thread that recorded it. So one thread records and replays all graphs of a session.
- A buffer of the session that grows moves away from where earlier graphs read and write. So the largest size is
  recorded first, and every size is recorded before any answer counts.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import DeviceUnavailable
from service.inference.session import OnnxSession, Provider


class _Batch(NamedTuple):
    images: ort.OrtValue
    binding: ort.IOBinding
    options: ort.RunOptions


class CudaGraphs(OnnxSession):
    """A session that replays a graph for each of the fixed batch sizes, and runs no other."""

    def __init__(
        self,
        model: Path,
        providers: Sequence[Provider],
        options: ort.SessionOptions,
        sizes: Sequence[int],
        device: str,
        device_id: int,
    ) -> None:
        """Load ``model`` and record a batch of each of ``sizes`` on the device that ``providers`` run on.

        Raises what OnnxSession does, and DeviceUnavailable when recording fails. A CPU records nothing; all else is
        the same there.
        """
        super().__init__(model, providers, options)
        self._batches: dict[int, _Batch] = {}
        self._thread = ThreadPoolExecutor(1, "cuda-graphs")
        try:
            self._thread.submit(self._record, sizes, device, device_id).result()
        except Exception as error:  # onnxruntime's exceptions share no base below Exception
            raise DeviceUnavailable(f"{self.provider} can't record the model as CUDA graphs: {error}") from error

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Do as OnnxSession does, for ``n`` among the sizes; KeyError for another."""
        return self._thread.submit(self._replay, images).result()

    def _record(self, sizes: Sequence[int], device: str, device_id: int) -> None:
        for size in sorted(sizes, reverse=True):
            blank = np.zeros((size, self.height, self.width, 3), np.uint8)
            images = ort.OrtValue.ortvalue_from_shape_and_type(blank.shape, np.uint8, device, device_id)
            probabilities = ort.OrtValue.ortvalue_from_shape_and_type(
                (size, self.classes), np.float32, device, device_id
            )
            binding = self._session.io_binding()
            binding.bind_ortvalue_input("images", images)
            binding.bind_ortvalue_output("probabilities", probabilities)
            options = ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(size))
            self._batches[size] = _Batch(images, binding, options)
            self._replay(blank)  # the first time onnxruntime itself runs it as often as recording takes

    def _replay(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = self._batches[len(images)]
        batch.images.update_inplace(images)
        self._session.run_with_iobinding(batch.binding, batch.options)
        # A copy on any device; OrtValue.numpy() would show the next batch's answers, too, where that is the CPU.
        probabilities: NDArray[np.float32] = batch.binding.copy_outputs_to_cpu()[0]
        return probabilities
