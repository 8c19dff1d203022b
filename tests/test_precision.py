"""bfloat16 towers, and a profile of a cell's steps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from bench.cli import main
from bench.clip.backbone import load_backbone
from bench.clip.text import Prompts
from bench.errors import UserError
from bench.features import ImageFeatures, View

pytestmark = pytest.mark.usefixtures("one_thread")


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_features_of_bfloat16_towers_are_float32_and_near_those_of_float32(tiny: Any, cache: Path) -> None:
    """bfloat16 keeps 8 bits: errors of a hundredth are its own; none would mean that it was not used."""
    single, half = (load_backbone("demo-clip", precision=p) for p in ("float32", "bfloat16"))
    assert half.tower.dtype == torch.bfloat16 and half.weights != single.weights
    images = tiny.images()[:6]
    for kind in ("pooled", "local", "preproj"):
        a, b = (ImageFeatures(x).get(images, View(), kind) for x in (half, single))
        assert a.dtype == torch.float32 and 1e-5 < relative(a, b) < 0.1
    context = 0.02 * torch.randn(1, 4, single.tower.width, generator=torch.Generator().manual_seed(0))
    gradients = []
    for backbone in (half, single):
        learned = context.clone().requires_grad_(True)
        features = backbone.tower.encode([Prompts(learned, ["red paint", "dark"])])[0]
        assert features.dtype == torch.float32
        features.square().sum().backward()
        assert learned.grad is not None and learned.grad.dtype == torch.float32
        gradients.append(learned.grad)
    assert 1e-5 < relative(*gradients) < 0.1


@pytest.mark.parametrize("method", ["coop", "softcpt", "cocoop", "plot", "prograd", "linear-probe"])
def test_a_run_in_bfloat16_is_a_backbone_of_its_own_and_learns_in_float32(
    tiny: Any, tmp_path: Path, method: str
) -> None:
    options = ["all.epochs=2"] if method != "linear-probe" else []
    options += ["cocoop.words="] if method == "cocoop" else []
    common = {"methods": [method], "shots": [2], "seeds": [1], "options": options}
    for precision in ("float32", "bfloat16"):
        tiny.run(tmp_path / "runs", precision=precision, **common)
    folders = {p.parent.parent.name for p in (tmp_path / "runs").rglob("*.json")}
    assert folders == {"tiny-clip", "tiny-clip_bfloat16"}
    (path,) = (tmp_path / "runs").rglob("tiny-clip_bfloat16/*/*.json")
    record = json.loads(path.read_text())
    assert record["status"] == "done" and record["config"]["precision"] == "bfloat16"
    kept = bench.load_cell(str(path), backbone=tiny.backbone)
    assert kept.backbone.precision == "bfloat16"
    state = kept.method.state()
    assert state and all(v.dtype in (torch.float32, torch.float64, torch.int64) for v in state.values())
    assert all(v.isfinite().all() for v in state.values())


def test_an_unknown_precision_is_an_error(tiny: Any) -> None:
    with pytest.raises(UserError, match="--precision 'float16': one of float32, bfloat16"):
        load_backbone(tiny.backbone, precision="float16")  # type: ignore[arg-type]


def test_profile_writes_a_trace_of_the_steps_beside_the_record(tiny: Any, tmp_path: Path) -> None:
    more = ["--profile", "--methods=zero-shot,coop", "--shots=2", "--seeds=1", "-o", "coop.epochs=20"]
    assert main(tiny.command(tmp_path / "runs", *more)) == 0
    (trace,) = (tmp_path / "runs").rglob("coop/*.trace.json.gz")
    assert trace.with_name(trace.name.replace(".trace.json.gz", ".json")).is_file()
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {e["name"] for e in events if str(e.get("name", "")).startswith("ProfilerStep#")}
    assert len(steps) == 5
    assert any(e.get("name") == "aten::linear" for e in events)
    bench.report(tmp_path / "runs", tmp_path / "report")  # a trace is no record
    assert main(tiny.command(tmp_path / "other", *more[1:])) == 0
    assert not list((tmp_path / "other").rglob("*.trace.json.gz"))
