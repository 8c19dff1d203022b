"""How much tasks share before training: the kernels of methods, and their spectra."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cli import main
from bench.kernels import mixing, spectrum
from bench.methods import find_method, method_names

sys.path.append(str(Path(__file__).parent))
from test_methods_all import world

pytestmark = pytest.mark.usefixtures("one_thread")

PATHS = [("animals",), ("animals",), ()]


def kernel(method: Any) -> Tensor:
    a = mixing(method)
    return a @ a.T


def kernel_of(name: str, **params: Any) -> Tensor:
    kind: Any = find_method(name)
    method = kind(kind.Params(context=4, **params))
    tasks = [replace(task, path=path) for task, path in zip(world().tasks, PATHS, strict=True)]
    method.setup(world().clip, tasks, seed=1)
    return kernel(method)


def features(name: str = "softcpt") -> Tensor:
    """F of SoftCPT at its start, in double."""
    method: Any = find_method(name)()
    method.setup(world().clip, world().tasks, seed=1)
    return method.features([0, 1, 2]).detach().double()


def test_separate_contexts_share_nothing_and_one_context_everything() -> None:
    for joint in (True, False):
        assert torch.equal(kernel_of("coop", joint=joint), torch.eye(3, dtype=torch.float64))
    assert torch.equal(kernel_of("shared-coop"), torch.ones(3, 3, dtype=torch.float64))


def test_softcpt_s_kernel_is_its_features_products() -> None:
    f = features()
    torch.testing.assert_close(kernel_of("softcpt"), f @ f.T, rtol=1e-5, atol=0)


def test_a_tree_s_kernel_counts_common_nodes() -> None:
    """Root, animals and three leaves."""
    nodes = torch.tensor([[3, 2, 1], [2, 3, 1], [1, 1, 2]], dtype=torch.float64)
    assert torch.equal(kernel_of("coop-tree"), nodes)
    f = features()
    torch.testing.assert_close(kernel_of("softcpt-residual"), f @ f.T + nodes, rtol=1e-5, atol=0)
    scaled = kernel_of("softcpt-residual", node_scale=3.0)
    torch.testing.assert_close(scaled, f @ f.T + 9 * nodes, rtol=1e-5, atol=0)
    torch.testing.assert_close(kernel_of("softcpt-tree"), f @ f.T, rtol=1e-5, atol=0)  # its scales start at 0


@pytest.mark.parametrize("name", ["softcpt-graph", "softcpt-tree"])
def test_what_the_meta_network_reads_makes_the_kernel(name: str) -> None:
    kind: Any = find_method(name)
    method = kind(kind.Params(context=4))
    method.setup(world().clip, [replace(task, path=p) for task, p in zip(world().tasks, PATHS, strict=True)], seed=1)
    if name == "softcpt-tree":
        method.learned["scales"].data.fill_(0.5)
    read = method.task_input([0, 1, 2]).detach().double()
    assert not torch.allclose(read, features().double(), rtol=1e-2)
    torch.testing.assert_close(kernel(method), read @ read.T, rtol=1e-4, atol=1e-6)


def test_a_fixed_mixture_of_contexts_is_a_kernel_of_rank_r() -> None:
    assert torch.equal(kernel_of("coop-kernel", kernel="ones"), torch.ones(3, 3, dtype=torch.float64))
    pi = mixture()
    torch.testing.assert_close(kernel_of("coop-mix"), pi @ pi.T, rtol=1e-5, atol=0)


def mixture() -> Tensor:
    """Proportions [3, 8] of `coop-mix` at its start."""
    method: Any = find_method("coop-mix")(find_method("coop-mix").Params(context=4))
    method.setup(world().clip, world().tasks, seed=1)
    return method.proportions(method.task_input([0, 1, 2]), [0, 1, 2]).detach().double()


@pytest.mark.parametrize(
    ("a", "shares"),
    [
        ([[1, 1, 0], [1, 0, 1]], [75, 25]),  # K = [[2, 1], [1, 2]]: eigenvalues 3 and 1
        ([[1], [2]], [100, 0]),
        ([[1, 0], [0, 1]], [50, 50]),
    ],
)
def test_spectrum_is_the_eigenvalues_shares_of_the_trace(a: list[list[float]], shares: list[float]) -> None:
    table = spectrum(torch.tensor(a, dtype=torch.float64))
    assert table["% of the trace"].tolist() == pytest.approx(shares, abs=1e-9)
    assert table["together"].tolist() == pytest.approx([shares[0], 100])
    assert table["eigenvalue"].tolist() == [1, 2]


def test_explain_prints_the_spectrum_between_a_suite_s_tasks(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Colour and Shade below one node, Stripes outside: K = [[3, 2, 1], [2, 3, 1], [1, 1, 2]].

    Its eigenvalues are 1, and two of sum 7 and product 8, (7 ± √17)/2; its trace is 8.
    """
    assert main(["explain", "coop-tree", "--suite", tiny.suite, "--backbone", tiny.backbone]) == 0
    said = capsys.readouterr().out
    assert "K = B Bᵀ: the number of nodes that two tasks have in common" in said
    rows = [line.split() for line in said.splitlines() if line.strip()[:2] in ("1 ", "2 ", "3 ")]
    assert rows == [["1", "69.5", "69.5"], ["2", "18.0", "87.5"], ["3", "12.5", "100.0"]]
    options = ["-o", "coop-tree.nodes=leaves"]
    assert main(["explain", "coop-tree", "--suite", tiny.suite, "--backbone", tiny.backbone, *options]) == 0
    assert capsys.readouterr().out.count("33.3") == 4  # three equal shares, and the first of the sums


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["zero-shot", "--suite", "demo"], "zero-shot --suite demo: it has no kernel between tasks; leave --suite out"),
        (["softcpt", "--backbone", "RN50"], "softcpt: --backbone says nothing without --suite"),
        (["softcpt", "--suite", "fashion20", "--backbone", "demo-clip"], "names stand in the data: give --data ROOT"),
        (["softcpt-graph", "--suite", "rs8", "--backbone", "demo-clip"], "tasks' class names, which stand in the data"),
        (["softcpt", "--suite", "fashion"], "did you mean 'fashion20'"),
        (["coop", "--suite", "rs8", "--backbone", "demo-clip", "-o", "coop.joint=true,false"], "not a sweep"),
    ],
)
def test_explain_says_why_there_is_no_spectrum(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words]) == 2
    assert said in capsys.readouterr().err


def test_names_in_a_suite_file_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "softcpt", "--suite", "general10", "--backbone", "demo-clip"]) == 0
    said = capsys.readouterr().out
    shares = [float(line.split()[1]) for line in said.splitlines() if line.strip().split(" ")[0].isdigit()]
    assert len(shares) == 10 and sum(shares) == pytest.approx(100, abs=0.6) and shares == sorted(shares, reverse=True)


def test_methods_without_a_kernel_say_none() -> None:
    without = {name for name in method_names() if not find_method(name).task_kernel}
    assert without >= {"zero-shot", "cocoop", "coop-cs", "softcpt-cata", "softcpt-csts", "mvlpt", "coop-mpt"}
    assert not without & {"coop", "shared-coop", "softcpt", "softcpt-star", "softcpt-nats", "coop-tree", "coop-kernel"}
