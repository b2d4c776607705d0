"""Memory bounds of the host tier, from the kernel's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from holdfast.errors import ConfigError
from holdfast.vllm.offload import host_memory
from holdfast.vllm.offload.host_memory import Bound, check_fits, memory_bounds

GIB = 1 << 30
Kernel = Callable[[str, str, dict[str, str]], None]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Makes the kernel's files: own cgroups, mounts below `/fs`, and files there."""

    def make(own: str, mounts: str, files: dict[str, str]) -> None:
        (tmp_path / "cgroup").write_text(own)
        (tmp_path / "mountinfo").write_text(mounts.replace("/fs", str(tmp_path / "fs")))
        for name, text in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(host_memory, "_OWN_CGROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(host_memory, "_MOUNTS", tmp_path / "mountinfo")
        memory = SimpleNamespace(available=100 * GIB)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    return make


def free_gib() -> list[float]:
    return [bound.num_bytes / GIB for bound in memory_bounds()]


V2 = "30 23 0:26 {root} /fs rw shared:4 - cgroup2 cgroup2 rw\n"
V1 = "35 31 0:32 {root} /fs/memory rw - cgroup cgroup rw,memory\n"


def v2_files(directory: str, limit: str, used: int, freeable: int = 0) -> dict[str, str]:
    return {
        f"{directory}memory.max": f"{limit}\n",
        f"{directory}memory.current": f"{used}\n",
        f"{directory}memory.stat": f"anon 1\ninactive_file {freeable}\nactive_file 0\nodd\n",
    }


def v1_files(directory: str, limit: int, used: int) -> dict[str, str]:
    return {
        f"{directory}memory.limit_in_bytes": f"{limit}\n",
        f"{directory}memory.usage_in_bytes": f"{used}\n",
        f"{directory}memory.stat": f"total_inactive_file {GIB}\ntotal_active_file 0\n",
    }


def test_machine_memory_counts_without_cgroups(kernel: Kernel) -> None:
    kernel("", "", {})
    assert free_gib() == [100.0]


def test_cgroup_mounted_as_root_of_a_container(kernel: Kernel) -> None:
    kernel("0::/\n", V2.format(root="/"), v2_files("", str(16 * GIB), 6 * GIB, 2 * GIB))
    assert free_gib() == [100.0, 12.0]


def test_nested_cgroups_all_bound_memory(kernel: Kernel) -> None:
    files = {
        **v2_files("pods/one/box/", "max", GIB),
        **v2_files("pods/one/", str(8 * GIB), 3 * GIB),
        **v2_files("pods/", str(64 * GIB), 32 * GIB),
    }
    kernel("0::/pods/one/box\n", V2.format(root="/"), files)
    assert free_gib() == [100.0, 5.0, 32.0]


def test_cgroup_v1_in_a_container_without_a_namespace(kernel: Kernel) -> None:
    own = "11:cpu,cpuacct:/docker/ab\n7:memory:/docker/ab\n0::/\n"
    kernel(own, V1.format(root="/docker/ab"), v1_files("memory/", 4 * GIB, 2 * GIB))
    assert free_gib() == [100.0, 3.0]


def test_cgroup_v1_nested_beside_v2(kernel: Kernel) -> None:
    files = {
        **v1_files("memory/a/b/", 1 << 62, 2 * GIB),
        **v1_files("memory/a/", 10 * GIB, 5 * GIB),
    }
    mounts = "41 31 0:38 / /fs/unified rw - cgroup2 cgroup2 rw\n" + V1.format(root="/")
    kernel("4:memory:/a/b\n0::/\n", mounts, files)
    assert min(free_gib()) == 6.0


def test_malformed_or_missing_files_bound_nothing(kernel: Kernel) -> None:
    mounts = "short - cgroup2\n" + V2.format(root="/")
    kernel("0::/gone\nodd\n", mounts, {"memory.max": "", "memory.current": "x"})
    assert free_gib() == [100.0]


def test_cgroup_over_its_limit_has_nothing_free(kernel: Kernel) -> None:
    kernel("0::/\n", V2.format(root="/"), v2_files("", str(GIB), 2 * GIB))
    assert free_gib() == [100.0, 0.0]


def test_error_names_bound_and_figures() -> None:
    bounds = [Bound("the machine", 8 * GIB, "less"), Bound("the container", 2 * GIB, "more")]
    check_fits("it", 2 * GIB, iter(bounds))
    with pytest.raises(ConfigError, match=r"it, but the container has 2\.0 GiB free") as caught:
        check_fits("it", 3 * GIB, iter(bounds))
    assert caught.value.hint == "more"


def test_this_machine_has_free_memory() -> None:
    assert all(bound.num_bytes > 0 for bound in memory_bounds())
