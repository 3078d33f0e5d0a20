"""The behaviour of onnxruntime's CUDA build on a machine without a GPU: ``make test-gpu-wheel``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.errors import DeviceUnavailable
from service.inference.devices import cuda
from service.inference.devices.device import Graph
from service.inference.devices.tensorrt import TensorRt
from service.inference.session import OnnxSession, session_options
from service.settings import Settings

pytestmark = [
    pytest.mark.gpu_wheel,
    pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is an NVIDIA driver"),
]
CHECK = "from service.__main__ import main; main()"
WITHOUT_LIBRARIES = "import onnxruntime; onnxruntime.preload_dlls = lambda: None; " + CHECK
OPEN = """
import sys
from pathlib import Path
import onnxruntime
from service.inference.devices import cuda
from service.inference.session import OnnxSession, session_options
from service.settings import Settings
onnxruntime.preload_dlls()
settings = Settings(device="cuda", cuda_graphs=True, gpu_memory_limit_mb=1000)
name, options = cuda.provider(0, settings)
del options["device_id"]  # read with the others, and refused where there is no GPU
options |= dict(argument.split("=") for argument in sys.argv[2:])
OnnxSession(Path(sys.argv[1]), [(name, options)], session_options(1))
"""


@pytest.fixture(scope="module")
def xception(model_repository: Path) -> Path:
    return model_repository / "xception" / "1" / "fp32.onnx"


@pytest.fixture(scope="module")
def stub_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1 that has the symbols that onnxruntime links to, and that finds no GPU."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text("int cuTensorMapEncodeTiled(void) { return 999; }\n")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so.1", "driver.c"],  # noqa: S607
        cwd=folder,
        check=True,
    )
    return folder


def failure(program: str, *arguments: str, libraries: Path | None = None) -> str:
    """Run Python, check that it fails, and return its stderr."""
    environment = os.environ | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stderr.strip()


def test_onnxruntime_by_itself_goes_on_without_a_gpu(xception: Path) -> None:
    session = ort.InferenceSession(xception, providers=["CUDAExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_our_session_does_not(xception: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=r"CUDAExecutionProvider can't load the model.*default CPU EP"):
        OnnxSession(xception, [cuda.provider(0, Settings())], session_options(1))


def test_with_all_its_wheels_only_the_driver_is_missing() -> None:
    told = failure(CHECK, "check", "--device=cuda")
    assert told == ("can't start: no NVIDIA driver (libcuda.so.1): install one, or start the container with --gpus all")


def test_without_its_wheels_each_library_is_named() -> None:
    told = failure(WITHOUT_LIBRARIES, "check", "--device=cuda")
    assert "no NVIDIA driver (libcuda.so.1)" in told
    assert "libcublasLt.so.13, libcublas.so.13, libcurand.so.10): install requirements/service-gpu.txt" in told
    assert "no cuDNN 9 (libcudnn.so.9): install requirements/service-gpu.txt" in told


def test_tensorrt_is_not_among_its_wheels() -> None:
    assert "no TensorRT 10 (libnvinfer.so.10, libnvonnxparser.so.10)" in failure(CHECK, "check", "--device=tensorrt")


def test_a_driver_too_old_is_told_by_cuda(stub_driver: Path) -> None:
    told = failure(CHECK, "check", "--device=cuda", libraries=stub_driver)
    assert (
        "CUDA driver version is insufficient for CUDA runtime version (CUDA error 35) install an NVIDIA driver" in told
    )


def test_without_a_driver_cuda_pins_no_memory() -> None:
    ort.preload_dlls()
    with pytest.raises(DeviceUnavailable, match="cudaHostRegister: CUDA driver version is insufficient"):
        cuda.Cuda().pin(np.zeros(4096, np.uint8))


def test_onnxruntime_knows_the_cuda_options(xception: Path, stub_driver: Path) -> None:
    """onnxruntime reads all options, and fails only at the first call to a GPU."""
    told = failure(OPEN, str(xception), libraries=stub_driver)
    assert "CUDA failure 35" in told
    assert "provider option" not in told
    assert 'Unknown provider option: "nonsense"' in failure(OPEN, str(xception), "nonsense=1", libraries=stub_driver)
    for option in ("prefer_nhwc", "enable_cuda_graph"):
        assert f'"{option}"' in failure(OPEN, str(xception), f"{option}=yes", libraries=stub_driver)


def test_the_tensorrt_options_are_names_that_its_provider_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TensorRT provider can't be loaded without TensorRT, so this test reads the names in its library."""
    monkeypatch.setenv("HOME", str(tmp_path))  # TensorRT's cache is made there
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    (_, options), _ = TensorRt().providers(Graph(Path("fp16.onnx"), "fp16", height=299, width=299), 0, Settings())
    content = library.read_bytes()
    assert [name for name in options if name.encode() not in content] == []
