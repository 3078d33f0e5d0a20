"""Mistakes in the container images that show before the images are built."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STAGES = {
    match[1]: match[2]
    for match in re.finditer(
        r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", Path("docker/Dockerfile").read_text(), re.MULTILINE | re.DOTALL
    )
}
IGNORE = Path(".dockerignore").read_text().splitlines()
ADMITTED = {line[1:] for line in IGNORE if line.startswith("!")}


def sources(stage: str) -> list[str]:
    """Return the paths that a stage copies from the build context."""
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", STAGES[stage], re.MULTILINE)
    found = [str(path) for copy in copies for source in copy.split() for path in sorted(Path().glob(source))]
    return [path for path in found if path not in IGNORE]


def pins(requirements: str) -> dict[str, str]:
    text = Path("requirements", requirements).read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_what_is_copied_exists_and_is_let_into_the_build_context() -> None:
    copied = {Path(source) for stage in STAGES for source in sources(stage)}
    copies = [
        source for text in STAGES.values() for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)
    ]
    assert [source for source in copies if not list(Path().glob(source))] == []
    admitted = {folder: {source for source in copied if source.is_relative_to(folder)} for folder in ADMITTED}
    assert set().union(*admitted.values()) == copied
    assert all(admitted.values())


@pytest.mark.parametrize("image", ["service", "service-gpu"])
def test_a_service_image_holds_the_server_and_its_locked_requirements(image: str) -> None:
    assert sources(image)[0] == "service"
    measuring = {str(path) for path in Path("bench").glob("*.py")} - {"bench/rewrites.py"}
    assert set(sources(image)[1:]) == measuring  # without the parts that need PyTorch or Locust
    (packages,) = re.findall(r"^COPY --from=(\S+) /venv /venv$", STAGES[image], re.MULTILINE)
    assert sources(packages) == [f"requirements/{image}.txt"]
    assert f"--require-hashes -r requirements/{image}.txt" in STAGES[packages]


def test_the_locust_image_holds_all_that_its_command_reads(tmp_path: Path) -> None:
    for source in sources("locust"):
        copy = shutil.copytree if Path(source).is_dir() else shutil.copy
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        copy(source, tmp_path / source)
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.+)$", STAGES["locust"], re.MULTILINE)
    _, *arguments = json.loads(entrypoint)
    command = [sys.executable, *arguments, "--list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.stdout.split() == ["Available", "Users:", "Visitor"], done.stderr


def test_the_service_image_measures_with_what_it_holds(tmp_path: Path) -> None:
    for source in sources("service"):
        copy = shutil.copytree if Path(source).is_dir() else shutil.copy
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        copy(source, tmp_path / source)
    command = [sys.executable, "-m", "bench", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603
    offered = set(re.findall(r"^    (\w+) ", done.stdout, re.MULTILINE))
    assert offered == {"limits", "family", "classify", "service", "cache", "triton", "load"}


@pytest.mark.parametrize("requirements", ["service.txt", "service-gpu.txt", "locust.txt"])
def test_locked_requirements_are_hashed_and_free_of_training(requirements: str) -> None:
    entries = re.split(r"\n(?=\w)", Path("requirements", requirements).read_text().rstrip())
    assert all(re.match(r"[\w.-]+==\S+ .*--hash=sha256:", entry, re.DOTALL) for entry in entries)
    assert not {"torch", "onnx", "onnxscript", "h5py", "huggingface-hub"} & pins(requirements).keys()


def test_the_images_list_what_they_contain(tmp_path: Path) -> None:
    assert f"cyclonedx-bom=={pins('dev.txt')['cyclonedx-bom']}\n" in STAGES["sbom"]
    (tmp_path / "requirements").mkdir()
    for source in sources("sbom"):
        shutil.copy(source, tmp_path / source)
    (command,) = re.findall(r"^RUN (for .*?done)$", STAGES["sbom"], re.MULTILINE | re.DOTALL)
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=path, check=True)  # noqa: S603, S607 - our own command
    for image in ("service", "service-gpu"):
        assert f"COPY --from=sbom /app/{image}.cdx.json sbom.cdx.json\n" in STAGES[image]
        listed = json.loads((tmp_path / f"{image}.cdx.json").read_text())
        assert listed["bomFormat"] == "CycloneDX"
        components = listed["components"]
        assert {one["name"]: one["version"] for one in components} == pins(f"{image}.txt")
        assert all(one["externalReferences"][0]["hashes"] for one in components)


def test_locust_is_the_one_that_was_tested() -> None:
    assert pins("locust.txt")["locust"] == pins("dev.txt")["locust"]


def test_the_gpu_server_is_the_same_server() -> None:
    cpu, gpu = pins("service.txt"), pins("service-gpu.txt")
    assert cpu.pop("onnxruntime") == gpu.pop("onnxruntime-gpu")
    del cpu["onnxruntime-ep-openvino"]  # the GPU image has no OpenVINO
    assert {name: version for name, version in gpu.items() if not name.startswith("nvidia-")} == cpu
