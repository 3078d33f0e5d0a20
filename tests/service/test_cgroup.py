"""CPU quotas, from copies of what Linux shows below /proc and /sys."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from service.cgroup import cpu_quota


def tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write /proc/self/cgroup, and files below /sys/fs/cgroup."""
    named = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    for name, content in named.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def v1(folder: str, quota: object, period: object = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "200000 100000\n"}, 0.5),
        ("0::/a\n", {"b/cpu.max": "50000 100000\n", "a/b/cpu.max": "50000 100000\n"}, math.inf),
        ("0::/kubepods/pod\n", {"cpu.max": "300000 100000\n"}, 3),  # the host's name of the container's topmost group
        ("0::/../other\n", {"other/cpu.max": "100000 100000\n"}, math.inf),  # another group of that name
        ("4:cpu,cpuacct:/a/b\n3:memory:/c\n", v1("cpu,cpuacct/a", 250_000) | v1("cpu,cpuacct/a/b", -1), 2.5),
        ("4:cpuacct,cpu:/docker/x\n", v1("cpu", 40_000, 20_000), 2),
        ("4:cpuset:/a\n3:cpuacct:/a\n", v1("cpu/a", 100_000), math.inf),
        ("1:name=systemd:/a:b\n4:cpu:/a:b\n0::/a:b\n", v1("cpu/a:b", 100_000), 1),
        ("4:cpu:/\n0::/a\n", v1("cpu", 200_000) | {"unified/a/cpu.max": "100000 100000\n"}, 1),
    ],
)
def test_the_smallest_quota_of_the_groups_from_the_process_up_counts(
    tmp_path: Path, groups: str, files: dict[str, str], cpus: float
) -> None:
    assert cpu_quota(tree(tmp_path, groups, files)) == cpus


@pytest.mark.parametrize("content", ["", "1", "fast 100000", "100000 0", "1 2 3", "é", "100000 -"])
def test_a_malformed_file_sets_no_quota(tmp_path: Path, content: str) -> None:
    groups = "0::/a\n4:cpu:/a\nnonsense\n\n:::\n"
    tree(tmp_path, groups, {"a/cpu.max": content, "cpu.max": "200000 100000\n"} | v1("cpu/a", content, 0))
    for file in tmp_path.rglob("a/*"):
        file.write_bytes(file.read_text().encode("latin-1"))  # which may be no UTF-8
    assert cpu_quota(tmp_path) == 2


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) == math.inf
    (tmp_path / "proc/self/cgroup").mkdir(parents=True)
    assert cpu_quota(tmp_path) == math.inf
