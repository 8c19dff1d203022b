"""Ray and Dask, for real: clusters of two workers, Ray's of two nodes on loopback addresses. `make clusters`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from test_parallel import User, learned, user

__all__ = ["user"]

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


def library(backend: str) -> Any:
    module = {"dask": "distributed", "ray": "ray"}[backend]
    return pytest.importorskip(module, reason=f"--backend {backend} needs prompt-bench[{backend}]")


@pytest.fixture(scope="module")
def dask() -> Iterator[str]:
    """The address of a scheduler with two workers."""
    cluster = library("dask").LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    yield cluster.scheduler_address
    cluster.close()


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    """The address of a cluster of two nodes with a CPU each, both on this machine."""
    library("ray")
    if sys.platform != "linux":
        pytest.skip("elsewhere 127.0.0.2 has to be set up first")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}  # bytes: the least that Ray takes
    # Not 127.0.0.1, which Ray takes for any address of this machine.
    cluster = Cluster(True, head_node_args={**node, "node_ip_address": "127.0.0.2", "include_dashboard": False})
    cluster.add_node(**node, node_ip_address="127.0.0.3")
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_workers_of_a_cluster_give_what_one_process_gives(
    tiny: Any, user: User, backend: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores and all that was learned, to the last bit; with a plug-in, failing cells and a worker that is killed."""
    grid = {"methods": ["zero-shot", "softcpt", user.method("Slow"), user.method("Broken")]}
    tiny.run(Path("serial"), **grid)
    user.log.unlink()
    address = request.getfixturevalue(backend)
    killed = user.folder / "killed"
    killed.mkdir()  # the first training from now on is the end of its process
    table = bench.run(results="parallel", backend=backend, address=address, **{**tiny.arguments, **grid})
    assert not killed.exists()
    assert tiny.numbers(Path("parallel")) == tiny.numbers(Path("serial"))
    assert learned(Path("parallel")) == learned(Path("serial"))
    assert len(table) == (1 + 4 + 4) * 3 and len(table.attrs["failed"]) == 4
    assert user.trained() == dict.fromkeys(["1-1", "1-2", "2-1", "2-2"], 1)  # to their ends
    assert os.getpid() not in user.processes() and len(user.processes()) >= 2
    assert not list(Path("parallel").rglob("*.claim"))
    assert capsys.readouterr().err.count(", key ") == 9


@pytest.fixture
def in_time() -> Iterator[None]:
    """Two minutes for a test that would hang."""

    def stop(*_: object) -> None:
        raise TimeoutError("two minutes have passed")

    if sys.platform == "win32":
        pytest.skip("no SIGALRM")
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_cluster_of_its_own_is_started_and_goes_on_after_the_death_of_a_worker(
    tiny: Any, user: User, backend: str, in_time: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the dead worker's cell is begun again; the other worker ends what it was at."""
    library(backend)
    killed = user.folder / "killed"
    killed.mkdir()  # the first training is the end of its process
    grid = {"methods": [user.method("Slow")], "shots": [1, 2], "seeds": [1, 2]}
    table = bench.run(results="runs", jobs=2, backend=backend, **{**tiny.arguments, **grid})
    assert not killed.exists()
    assert len(table) == 4 * 3 and not table.attrs["failed"]
    cells = dict.fromkeys(["1-1", "1-2", "2-1", "2-2"], 1)
    assert user.trained() == user.trained("begun") == cells and os.getpid() not in user.processes()
    assert not list(Path("runs").rglob("*.claim"))
    said = capsys.readouterr().err
    assert said.count("a worker died (") == 1 and said.count(", key ") == 4


@pytest.mark.parametrize("backend", ["dask", "ray"])
@pytest.mark.parametrize("address", ["127.0.0.1:1", "tcp://127.0.0.1:1", "nowhere", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_named_at_once(tiny: Any, tmp_path: Path, backend: str, address: str) -> None:
    library(backend)
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"^--address {address}: .*(Dask scheduler|Ray cluster)") as caught:
        tiny.run(tmp_path, backend=backend, address=address)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(("backend", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_library_that_is_missing_is_named_with_its_extra(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"--backend {backend}: .*pip install 'prompt-bench\[{backend}\]'"):
        tiny.run(tmp_path, backend=backend)
