"""How much CPU time Linux lets this process have: the quotas of its control groups, of version 1, 2 or both.

A quota binds all groups below its own, so the smallest quota of the process' group and of the groups above it counts.
A container may see its own group as the topmost one, while /proc names the group as the host does.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(root: Path = Path("/")) -> float:
    """Return how many CPUs' time this process may take, by the files below ``root``; infinity without a quota.

    A file that is missing or malformed sets no quota.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for controllers, _, path in (line.partition(":")[2].partition(":") for line in lines):
        group = PurePosixPath(path)
        if not controllers:
            quotas += _quotas(root / "sys/fs/cgroup", group, _version_2)
            quotas += _quotas(root / "sys/fs/cgroup/unified", group, _version_2)  # beside groups of version 1
        elif "cpu" in controllers.split(","):
            quotas += _quotas(root / "sys/fs/cgroup" / controllers, group, _version_1)
            quotas += _quotas(root / "sys/fs/cgroup/cpu", group, _version_1)
    return min(quotas)


def _quotas(mount: Path, group: PurePosixPath, quota: Callable[[Path], float]) -> Iterator[float]:
    """Yield what ``quota`` finds in the folders of a group and of the groups above it."""
    for one in (group, *group.parents):
        try:
            yield quota(mount.joinpath(*one.parts[1:]))
        except (OSError, ValueError, ArithmeticError):  # no such file, no numbers in it, or a period of zero
            continue


def _version_1(folder: Path) -> float:
    quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return quota / period if quota > 0 else math.inf  # -1 says that there is none


def _version_2(folder: Path) -> float:
    quota, period = (folder / "cpu.max").read_text().split()
    return math.inf if quota == "max" else int(quota) / int(period)
