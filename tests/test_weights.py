"""Weight files as users have them: accepted where that is exact, otherwise the error says what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

import bench
from bench.clip.backbone import PAPER_BACKBONES, load_backbone
from bench.errors import UserError
from bench.weights import misfit, readable, unsupported

NUMBERS = {name: torch.tensor(n) for name, n in
           (("input_resolution", 32), ("context_length", 77), ("vocab_size", 516))}  # fmt: skip


def changed(config: str, name: str, change: Any) -> str:
    """A copy of a model's weights with other names or entries."""
    path = Path(config)
    out = path.with_name(f"{name}.safetensors")
    save_file(change(load_file(path.with_suffix(".safetensors"))), str(out))
    return str(out)


@pytest.mark.parametrize("before", ["", "module.", "state_dict.", "state_dict.module."])
def test_openai_s_own_state_dict_gives_the_features_of_the_plain_one(own_tiny: Any, before: str) -> None:
    config = own_tiny.model("quick", quick_gelu=True)
    file = changed(config, "openai", lambda d: {f"{before}{k}": v for k, v in (d | NUMBERS).items()})
    plain, theirs = load_backbone(config), load_backbone(config, file)
    assert theirs.weights == plain.weights and theirs.pretrained == "openai.safetensors"
    assert torch.equal(theirs.tower.encode_texts(["red paint"]), plain.tower.encode_texts(["red paint"]))


def test_openai_s_weights_are_refused_where_gelu_would_compute_other_numbers(own_tiny: Any, tmp_path: Path) -> None:
    file = changed(own_tiny.backbone, "openai", lambda d: d | NUMBERS)
    with pytest.raises(UserError, match=r'trained with QuickGELU.*put "quick_gelu": true into the model JSON'):
        load_backbone(own_tiny.backbone, file)
    for name in PAPER_BACKBONES:
        with pytest.raises(UserError, match=f"give --backbone {name}-quickgelu"):
            readable(Path(file), name, False, tmp_path)


def test_weights_that_do_not_tell_their_activation_are_taken_as_they_are(own_tiny: Any, tmp_path: Path) -> None:
    file = Path(own_tiny.backbone).with_suffix(".safetensors")
    assert readable(file, "RN50", False, tmp_path) == file
    one_number = Path(changed(own_tiny.backbone, "one", lambda d: d | {"vocab_size": torch.tensor(516)}))
    assert set(load_file(readable(one_number, "RN50", False, tmp_path))) == set(load_file(file))


def test_missing_unexpected_and_unfitting_weights_are_named(own_tiny: Any) -> None:
    def other(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del weights["ln_final.bias"], weights["ln_final.weight"]
        return weights | {"extra.one": torch.zeros(1), "token_embedding.weight": torch.zeros(9, 32)}

    file = changed(own_tiny.backbone, "other", other)
    with pytest.raises(UserError) as caught:
        load_backbone(own_tiny.backbone, file)
    assert str(caught.value).endswith(
        "could not be loaded: weights of another model: 2 missing (ln_final.weight, ln_final.bias); 1 unexpected "
        "(extra.one); 1 of another size (token_embedding.weight is [9, 32], not [516, 32])"
    )


def test_many_names_are_counted_and_three_of_them_shown() -> None:
    model = torch.nn.ModuleDict({f"layer{n}": torch.nn.Linear(1, 1, bias=False) for n in range(5)})
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict({})
    shown = "5 missing (layer0.weight, layer1.weight, layer2.weight, …)"
    assert misfit(caught.value) == f"weights of another model: {shown}"


def test_a_clip_of_transformers_is_recognised_with_the_model_it_is_in_open_clip(tmp_path: Path) -> None:
    names = {
        "text_model.encoder.layers.0.self_attn.k_proj.weight": torch.zeros(1),
        "vision_model.embeddings.patch_embedding.weight": torch.zeros(768, 3, 32, 32),
        "vision_model.embeddings.position_embedding.weight": torch.zeros(50, 768),
    }
    file = tmp_path / "model.safetensors"
    save_file(names, str(file))
    with pytest.raises(UserError, match=r"Hugging Face Transformers names them.*--backbone ViT-B-32 or ViT-B-32-quick"):
        load_backbone("ViT-B-32", str(file))


def test_the_home_folder_is_found_in_every_path(own_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own_tiny.root))
    monkeypatch.setenv("USERPROFILE", str(own_tiny.root))  # of Windows
    monkeypatch.chdir("/")
    plain = load_backbone(own_tiny.backbone)
    assert load_backbone("~/tiny-clip.json", "~/tiny-clip.safetensors").weights == plain.weights
    folder = own_tiny.root / "model"
    folder.mkdir()
    model = json.loads(Path(own_tiny.backbone).read_text())
    model["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = str(own_tiny.root / "tiny-bpe.txt.gz")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    shutil.copy(Path(own_tiny.backbone).with_suffix(".safetensors"), folder / "open_clip_model.safetensors")
    backbone = load_backbone("local-dir:~/model")
    assert backbone.name == "local-dir:~/model"
    assert torch.equal(backbone.tower.encode_texts(["red"]), plain.tower.encode_texts(["red"]))


# ---- models of open_clip that are no backbones ---------------------------------------------------------------


def test_the_list_marks_what_is_not_supported_and_why() -> None:
    table = bench.listing("backbones").set_index("backbone")["not supported"]
    assert table["ViT-B-16-SigLIP"] == "its tokenizer is one of Hugging Face Transformers"
    assert table["ViT-H-14-CLIPA"] == "its tokenizer is one of Hugging Face Transformers"
    assert table["roberta-ViT-B-32"] == "its text tower is one of Hugging Face Transformers"
    assert all(table[name] == "" for name in ("demo-clip", *PAPER_BACKBONES, "EVA02-B-16", "coca_ViT-B-32"))


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "ViT-L-14-CLIPA", "xlm-roberta-base-ViT-B-32"])
def test_an_unsupported_model_is_refused_before_anything_is_downloaded(name: str) -> None:
    with pytest.raises(UserError, match=f"--backbone {name} is not supported: its .* of Hugging Face Transformers"):
        load_backbone(name)


def test_every_supported_model_of_open_clip_has_clip_s_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    supported = [n for n in open_clip.list_models() if not unsupported(open_clip.get_model_config(n) or {})]
    assert len(supported) > 80
    vocabulary = open_clip.SimpleTokenizer()
    monkeypatch.setattr(open_clip.factory, "SimpleTokenizer", lambda *_, **__: vocabulary)  # read once, not 90 times
    assert all(open_clip.get_tokenizer(name) is vocabulary for name in supported)
