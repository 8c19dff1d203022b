"""Backbones as the command line takes them: what fits is loaded as it was trained, everything else is one line."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest

from bench.cli import main
from bench.clip.backbone import PAPER_BACKBONES, _weights, load_backbone
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from test_cli import Capture, mistake

pytestmark = pytest.mark.usefixtures("one_thread")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def in_config(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def bad_text(**settings: Any) -> Callable[[Path], None]:
    def change(config: Path) -> None:
        in_config(config, text_cfg={**json.loads(config.read_text())["text_cfg"], **settings})

    return change


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda c: c.write_text("{no json"), "not a readable JSON file"),
        (lambda c: c.write_bytes(b"\xff\xfe\x00"), "not a readable JSON file"),
        (lambda c: c.write_text("[]"), "not an open_clip model configuration"),
        (lambda c: c.write_text('{"embed_dim": 16}'), "configuration: no vision_cfg, text_cfg"),
        (lambda c: in_config(c, text_cfg="none"), "configuration: no text_cfg"),
        (lambda c: in_config(c, vision_cfg={"layers": 1, "widht": 8}), "could not be loaded"),
        (lambda c: in_config(c, vision_cfg={"layers": [1, 1, 2**63, 2]}), "vision_cfg has 9223372036854775808 layers"),
        (bad_text(layers=1001), "not supported: text_cfg has 1001 layers"),
        (bad_text(tokenizer_kwargs={"bpe_path": "../tiny/tiny-bpe.txt.gz"}), None),
        (bad_text(tokenizer_kwargs={"bpe_path": "../elsewhere.txt.gz"}), "is not a file beside the JSON"),
        (bad_text(tokenizer_kwargs={"bpe_path": 3}), "bpe_path 3 is not a file beside the JSON"),
        (bad_text(tokenizer_kwargs={"bpe_path": "tiny-clip.json"}), "could not be loaded"),
        (bad_text(tokenizer_kwargs={}), "could not be loaded"),  # CLIP's whole vocabulary, 516 embeddings
        (bad_text(width=64), "could not be loaded"),  # the weights are another model's
        (bad_text(hf_tokenizer_name="no/such-tokenizer"), "is not supported: its tokenizer is one of Hugging Face"),
        (lambda c: truncate(c.with_suffix(".safetensors")), "could not be loaded"),
        (lambda c: c.with_suffix(".safetensors").write_bytes(b""), "could not be loaded"),
        (lambda c: c.with_suffix(".safetensors").unlink(), "no weights beside it"),
        (lambda c: c.unlink(), "no such file"),
    ],
)
def test_damaged_model_files_are_one_line(
    own_tiny: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], Any], says: str | None,
) -> None:  # fmt: skip
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (own_tiny.root.parent / "elsewhere.txt.gz").write_bytes((own_tiny.root / "tiny-bpe.txt.gz").read_bytes())
    damage(Path(own_tiny.backbone))
    command = own_tiny.command(tmp_path / "runs", "--dry-run")
    if says is None:  # odd, but inside the folder
        assert main(command) == 0
    else:
        line = mistake(command, capsys)
        assert says in line
        assert len(line) < 500


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--backbone", "RN5"], r"--backbone 'RN5' is unknown; did you mean 'RN50'\?$"),
        (["--backbone", "vit-b-16"], r"did you mean 'ViT-B-16'\?$"),
        (["--backbone", "ViT-B-16", "--pretrained", "opnai"], r"'opnai' is neither a file nor a tag.*mean 'openai'\?"),
        (["--backbone", "ViT-B-16-plus"], r"ViT-B-16-plus needs --pretrained: a .safetensors file"),
        (["--backbone", "ViT-B-16-quickgelu"], r"needs --pretrained: one of openai, .* or a .safetensors file"),
        (["--pretrained", "no.safetensors"], r"'no.safetensors' is neither a file nor a tag of tiny-clip"),
        (["--pretrained", "clip.pt"], r"--pretrained clip.pt: only .safetensors files are read"),
        (["--backbone", "folder"], r"--backbone folder is a folder; give the model JSON inside it"),
        (["--backbone", "RN50.json"], r"RN50 is a name of open_clip's own; give the file another name"),
        (["--backbone", "local-dir:folder"], r"--backbone local-dir:folder could not be loaded"),
        (["--backbone", "local-dir:folder", "--pretrained", "openai"], r"brings its own weights"),
        (["--backbone", "RN50"], r"--backbone RN50 with --pretrained openai could not be loaded: .*download"),
        (["--backbone", "hf-hub:no/such-model"], r"--backbone hf-hub:no/such-model could not be loaded"),
    ],
)
def test_unfitting_backbone_is_one_line(
    tiny: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", offline)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "clip.pt").write_bytes(b"pickled")
    shutil.copy(tiny.backbone, "RN50.json")
    shutil.copy(Path(tiny.backbone).with_suffix(".safetensors"), "RN50.safetensors")
    line = mistake(tiny.command(tmp_path / "runs", *arguments), capsys)
    assert re.search(says, line), line


def offline(*_: Any, **__: Any) -> None:
    raise FileNotFoundError("Failed to download file: offline")


def test_weights_of_another_model_are_refused(own_tiny: Any, tmp_path: Path, capsys: Capture) -> None:
    other = own_tiny.model("wider", embed_dim=24)
    command = own_tiny.command(tmp_path, "--pretrained", str(Path(other).with_suffix(".safetensors")))
    says = mistake(command, capsys)
    assert "could not be loaded: weights of another model: 3 of another size (text_projection is [32, 24]," in says


def test_model_folder_without_weights_is_refused_rather_than_random(tiny: Any, tmp_path: Path) -> None:
    config = {"model_cfg": json.loads(Path(tiny.backbone).read_text())}
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = str(tiny.root / "tiny-bpe.txt.gz")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="could not be loaded"):
        load_backbone(f"local-dir:{tmp_path}")
    shutil.copy(Path(tiny.backbone).with_suffix(".safetensors"), tmp_path / "open_clip_model.safetensors")
    assert load_backbone(f"local-dir:{tmp_path}").embed_dim == 16


@pytest.mark.parametrize("name", PAPER_BACKBONES)
def test_openais_weights_come_with_quickgelu(name: str) -> None:
    assert _weights(name, "openai") == ("openai", {"force_quick_gelu": True})


def test_other_weights_of_the_same_model_come_without_quickgelu() -> None:
    assert _weights("ViT-B-32", "laion2b_s34b_b79k") == ("laion2b_s34b_b79k", {"force_quick_gelu": False})


def test_tag_is_downloaded_and_built_as_its_weights_were_trained(
    own_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of every tag, on a small model that stands in open_clip's tables."""
    config = own_tiny.model("tagged-clip", text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32,
                                                     "heads": 2, "layers": 1})  # fmt: skip
    entry = {"hf_hub": "org/tagged/", "quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tagged-clip", {"theirs": entry})
    asked = []

    def download(model_id: str, **_: Any) -> str:
        asked.append(model_id)
        return str(Path(config).with_suffix(".safetensors"))

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", download)
    command = own_tiny.command(tmp_path / "runs", "--backbone", "tagged-clip", "--pretrained", "theirs")
    assert main([*command, "--methods", "zero-shot"]) == 0
    assert asked == ["org/tagged"]
    (record,) = own_tiny.records(tmp_path / "runs").values()
    assert (record["cell"]["backbone"], record["config"]["pretrained"]) == ("tagged-clip", "theirs")
    backbone = load_backbone("tagged-clip", "theirs")
    kinds = {type(module).__name__ for module in backbone.model.modules()}
    assert "QuickGELU" in kinds and "GELU" not in kinds
    assert tuple(backbone.preprocessing["mean"]) == (0.5, 0.5, 0.5)
    # The same file without the tag has another activation and another mean: another fingerprint.
    assert load_backbone(config).weights != backbone.weights


def test_backbone_is_frozen_and_in_evaluation_mode(tiny: Any) -> None:
    backbone = load_backbone(tiny.backbone)
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert not backbone.model.training
    assert backbone.scale == pytest.approx(float(backbone.model.logit_scale.exp()))
    assert (backbone.name, backbone.pretrained) == ("tiny-clip", "tiny-clip.safetensors")
    assert backbone.image_size == (32, 32)
