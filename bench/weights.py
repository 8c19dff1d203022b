"""Weight files as users have them: read where that is exact, and said in words where they do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.errors import UserError

WRAPPERS = ("state_dict.", "module.")  # a checkpoint's entry, and torch's DataParallel: before every name or none
OPENAIS_NUMBERS = frozenset({"input_resolution", "context_length", "vocab_size"})  # beside the weights, in no model
TRANSFORMERS = ("text_model.", "vision_model.")
MAX_LAYERS = 1000  # of a tower; the deepest that anybody uses have less than a hundred
SHOWN = 3  # names of a kind in an error
HUB = "hf-hub:"
HUB_NAMES = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]


def readable(path: Path, model: str, quick_gelu: bool, folder: Path) -> Path:
    """The file itself, or a copy in `folder` as open_clip reads it: without wrappers and OpenAI's three numbers.

    Parameters
    ----------
    model, quick_gelu : what the weights are for.

    Raises
    ------
    UserError : Transformers' weights, or OpenAI's for a model that would compute something else with them.
    """
    with safe_open(str(path), framework="pt") as file:
        sizes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
    names = {key: _unwrapped(key, list(sizes)) for key in sizes}
    if all(any(name.startswith(part) for name in names.values()) for part in TRANSFORMERS):
        raise UserError(f"--pretrained {path.name}: {_transformers({names[key]: size for key, size in sizes.items()})}")
    numbers = {key for key, name in names.items() if name in OPENAIS_NUMBERS}
    if len(numbers) == len(OPENAIS_NUMBERS) and not quick_gelu:
        twin = f"{model}-quickgelu"
        known = twin in open_clip.list_models()
        way = f"give --backbone {twin}" if known else 'put "quick_gelu": true into the model JSON'
        raise UserError(
            f"--pretrained {path.name} is OpenAI's own state dict, trained with QuickGELU; {model} computes with GELU "
            f"and would give other numbers: {way}"
        )
    if not numbers and all(key == name for key, name in names.items()):
        return path
    copy = folder / path.name
    save_file({names[key]: value for key, value in load_file(path).items() if key not in numbers}, str(copy))
    return copy


def to_download(model: str, pretrained: str | None) -> str:
    """Where open_clip would download a model's weights from, or "" where they are on this machine.

    model : as open_clip names it. pretrained : one of its tags, or a file.
    """
    revision = None
    if model.startswith(HUB):
        place, _, revision = model.removeprefix(HUB).partition("@")
        repository, name = place, ""
    elif pretrained in open_clip.list_pretrained_tags_by_model(model):
        entry = open_clip.get_pretrained_cfg(model, pretrained)
        place = entry.get("hf_hub") or entry["url"]
        if not entry.get("hf_hub"):
            there = (Path("~/.cache/clip").expanduser() / place.rpartition("/")[2]).is_file()
            return "" if there else place
        repository, _, name = place.rpartition("/")
    else:
        return ""
    names = [name, str(Path(name).with_suffix(".safetensors"))] if name else HUB_NAMES
    cached = [huggingface_hub.try_to_load_from_cache(repository, n, revision=revision or None) for n in names]
    return "" if any(isinstance(file, str) for file in cached) else f"huggingface.co/{repository}"


def _unwrapped(key: str, keys: list[str]) -> str:
    for wrapper in WRAPPERS:
        if all(k.startswith(wrapper) for k in keys):
            key, keys = key.removeprefix(wrapper), [k.removeprefix(wrapper) for k in keys]
    return key


def _transformers(sizes: dict[str, tuple[int, ...]]) -> str:
    """What to do with a CLIP of Hugging Face Transformers; its patches and width tell which of open_clip's it is."""
    patches = sizes.get("vision_model.embeddings.patch_embedding.weight", ())
    positions = sizes.get("vision_model.embeddings.position_embedding.weight", ())
    found = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name) or {}
        vision = config["vision_cfg"]
        width, patch, image = (vision.get(k) for k in ("width", "patch_size", "image_size"))
        plain = isinstance(patch, int) and isinstance(image, int) and "multimodal_cfg" not in config
        alike = plain and patches[:1] + patches[2:] == (width, patch, patch)
        if alike and positions[:1] == ((image // patch) ** 2 + 1,) and not unsupported(config):
            found.append(name)
    names = f"--backbone {' or '.join(found[:SHOWN])}" if found else "--backbone"
    return (
        "named as Hugging Face Transformers names them (text_model.…, vision_model.…), which open_clip does not read; "
        f"use the same model by its open_clip name and tag ({names}; `python -m bench list backbones` shows all), or "
        "save the state_dict of a model in open_clip's form"
    )


def unsupported(config: dict[str, Any]) -> str:
    """Why a model of this configuration cannot be a backbone here, or "" if it can."""
    text = config.get("text_cfg", {})
    if text.get("hf_model_name"):
        return "its text tower is one of Hugging Face Transformers; prompt learning here needs open_clip's own"
    if text.get("hf_tokenizer_name"):
        return "its tokenizer is one of Hugging Face Transformers; prompt learning here needs CLIP's"
    for tower in ("text_cfg", "vision_cfg"):
        given = (config.get(tower) or {}).get("layers")
        for layers in given if isinstance(given, list) else [given]:  # a ResNet has several numbers of them
            if isinstance(layers, int) and layers > MAX_LAYERS:
                return f"{tower} has {layers} layers, which would be made one by one; at most {MAX_LAYERS} are taken"
    return ""


def misfit(error: Exception) -> str:
    """torch's complaint about a state dict in one line: how many names are missing, unexpected or of another size."""
    text = str(error)
    if "loading state_dict" not in text:
        return ""
    found = []
    for kind in ("Missing", "Unexpected"):
        listed = re.search(rf'{kind} key\(s\) in state_dict: (.*?)\.\s*$', text, re.MULTILINE)
        if listed:
            found.append(_some(re.findall(r'"([^"]+)"', listed[1]), kind.lower()))
    pairs = re.findall(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)", text)
    if pairs:
        found.append(_some([f"{name} is {own}, not {wanted}" for name, own, wanted in pairs], "of another size"))
    return f"weights of another model: {'; '.join(found)}" if found else ""


def _some(names: list[str], what: str) -> str:
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''})"
