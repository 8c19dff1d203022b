"""A backbone: an open_clip model, frozen, with what the bench needs to know of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from bench.clip.projection import Projection
from bench.clip.text import TextTower
from bench.datasets.cache_paths import cache_folder
from bench.errors import UserError, nearest
from bench.files import from_json, offline, write_whole
from bench.weights import misfit, readable, to_download, unsupported

PACKAGED = Path(__file__).parents[1] / "backbones"  # the demo's own weights
OPEN_CLIPS_OWN = {p.stem for p in (Path(open_clip.__file__).parent / "model_configs").glob("*.json")}
LOCAL = "local-dir:"
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
PAPER_BACKBONES = ("RN50", "RN101", "ViT-B-32", "ViT-B-16")  # of CoOp and SoftCPT; OpenAI's weights


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP.

    Attributes
    ----------
    name, pretrained : as given on the command line (of a file: its name).
    precision : of the towers; what is learned, normalisation, logits and losses are float32 in any case.
    tower : text side.
    scale : τ = exp(logit_scale).
    embed_dim : d, width of the joint embedding.
    preprocess : PIL image -> [3, size, size], the model's own test view.
    preprocessing : the settings behind `preprocess` (size, mean, std, interpolation, …).
    weights : fingerprint of all weights, the architecture, the vocabulary and the preprocessing.
    """

    name: str
    pretrained: str
    precision: Precision
    model: Any
    tower: TextTower
    scale: float
    embed_dim: int
    preprocess: Callable[[Image.Image], Tensor]
    preprocessing: dict[str, Any]
    weights: str

    @property
    def device(self) -> torch.device:
        return self.tower.device

    @cached_property
    def projection(self) -> Projection:
        """From "preproj" features to "pooled" ones."""
        return Projection.of(self.model)

    @property
    def image_size(self) -> tuple[int, int]:
        size = self.preprocessing["size"]
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def packaged_names() -> list[str]:
    return sorted(p.stem for p in PACKAGED.glob("*.json"))


def backbone_names() -> list[str]:
    """All names `--backbone` takes: the packaged ones, then open_clip's (some are not supported: `bench.weights`)."""
    return list(dict.fromkeys([*packaged_names(), *open_clip.list_models()]))


def load_backbone(
    name: str,
    pretrained: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    download: bool = True,
) -> Backbone:
    """Load and freeze a backbone.

    Parameters
    ----------
    name : an open_clip model name ("RN50", "ViT-B-16", "hf-hub:org/model", "local-dir:folder", …), a packaged name
        ("demo-clip"), or the path of an open_clip model JSON. Models whose text tower or tokenizer is one of Hugging
        Face Transformers (SigLIP, CLIPA, XLM-R, …) are not supported.
    pretrained : an open_clip tag ("openai", …) or a .safetensors file, OpenAI's own state dicts among them. Default:
        "openai" for the paper's four backbones; for a model JSON the .safetensors file of the same name beside it.
    precision : "float32", or "bfloat16" for both towers; features come out as float32 either way.
    download : whether weights that are not on this machine are downloaded; with HF_HUB_OFFLINE they never are.

    Raises
    ------
    UserError : unknown name or tag, missing or unfitting file, a precision the device does not have.
    """
    config = _config_file(name)
    kwargs: dict[str, Any] = {}
    if config is not None:
        _check_config(config)
        _register(config)
        model_name = shown = config.stem
        kwargs = _tokenizer_options(config)
        weights_file = config.with_suffix(".safetensors")
        if pretrained is None and not weights_file.is_file():
            raise UserError(f"--backbone {name}: no weights beside it ({weights_file.name}); give --pretrained FILE")
        pretrained = pretrained or str(weights_file)
    else:
        model_name = shown = name
        if ":" in name and pretrained is not None:
            raise UserError(f"--pretrained {pretrained!r}: {name} brings its own weights; leave --pretrained out")
        if name.startswith(LOCAL):
            model_name = LOCAL + str(Path(name.removeprefix(LOCAL)).expanduser().absolute())
        elif ":" not in name and name not in open_clip.list_models():
            raise UserError(f"--backbone {name!r} is unknown; {_short(nearest(name, backbone_names()))}")
        if pretrained is None and name in PAPER_BACKBONES:
            pretrained = "openai"
        if (not download or offline()) and (origin := to_download(model_name, pretrained)):
            why = "HF_HUB_OFFLINE is set" if offline() else "this command downloads nothing"
            raise UserError(
                f"--backbone {name}: its weights are not on this machine, and cells' keys depend on them; a run would "
                f"download them from {origin} ({why})"
            )
    try:
        with _no_log(), tempfile.TemporaryDirectory() as folder:
            architecture = open_clip.get_model_config(model_name) or {}
            if why := unsupported(architecture):
                raise UserError(f"--backbone {shown} is not supported: {why}")
            source, options = _weights(model_name, pretrained)
            architecture |= options
            file = source if isinstance(source, Path) else None
            if file:
                quick_gelu = bool(architecture.get("quick_gelu"))
                source = str(readable(file, model_name, quick_gelu, Path(folder)))
            # Without require_pretrained a model whose weights cannot be had would come with random ones.
            model = open_clip.create_model(
                model_name, pretrained=source, device=device, require_pretrained=True, **options
            )
            tokenizer = open_clip.get_tokenizer(model_name, **kwargs)
        model.eval().requires_grad_(False).to(_dtype(precision, device))
        preprocessing = dict(model.visual.preprocess_cfg)
        preprocess = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
        tower = TextTower(model, tokenizer)
        projected = tower.encode_texts(["a"])
    except UserError:
        raise
    except Exception as error:  # whatever open_clip, torch or safetensors make of the user's files
        weights = f" with --pretrained {pretrained}" if pretrained else ""
        raise UserError(f"--backbone {shown}{weights} could not be loaded: {_first_line(error)}") from error
    fingerprint = _fingerprint(model, preprocessing, architecture, tokenizer)
    shown_weights = file.name if file else str(pretrained or "")
    if what_to_give(shown, shown_weights):
        _note(fingerprint, str(config.absolute()) if config else model_name, file)
    return Backbone(
        name=shown,
        precision=precision,
        pretrained=shown_weights,
        model=model,
        tower=tower,
        scale=float(model.logit_scale.exp()),
        embed_dim=projected.shape[-1],
        preprocess=preprocess,
        preprocessing=preprocessing,
        weights=fingerprint,
    )


def _note(weights: str, name: str, file: Path | None) -> None:
    """Note where the backbone of these weights stands, so that its cells find it again.

    In the cache, not with the cell: a cell's files may be passed on; they should not tell paths, and no path that
    somebody else's file names should be opened.
    """
    where = (name, str(file.absolute()) if file else None)
    with contextlib.suppress(OSError, UnicodeError):  # without the note the path has to be given
        if noted(weights) != where:
            write_whole(_note_of(weights), json.dumps(where, ensure_ascii=False))


def noted(weights: str) -> tuple[str, str | None] | None:
    """Name and weights, as `load_backbone` takes them, of a backbone of files that this machine has loaded before."""
    try:
        name, file = from_json(_note_of(weights).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return str(name), None if file is None else str(file)


def _note_of(weights: str) -> Path:
    name = hashlib.blake2b(weights.encode(), digest_size=16).hexdigest()  # a cell's file says `weights`: any text
    return cache_folder() / "backbones" / f"{name}.json"


def what_to_give(name: str, pretrained: str) -> str:
    """The options that name a cell's backbone, or "" where what is recorded of it names it.

    name, pretrained : as recorded; of files without their folders.
    """
    packaged = name in packaged_names()
    if name.startswith(LOCAL):
        return f"give its folder with --backbone {LOCAL}PATH"
    if ":" in name or (packaged and pretrained == f"{name}.safetensors"):
        return ""
    if not packaged and name not in OPEN_CLIPS_OWN:
        beside = pretrained == f"{name}.safetensors"
        weights = "" if beside else f" and its weights with --pretrained PATH/{pretrained}"
        return f"give its model JSON with --backbone PATH/{name}.json{weights}"
    tags = [] if packaged else open_clip.list_pretrained_tags_by_model(name)
    return "" if pretrained in tags else f"give its weights with --pretrained PATH/{pretrained}"


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision!r}: one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and device.startswith("cuda") and not torch.cuda.is_bf16_supported():
        raise UserError(f"--precision bfloat16: {torch.cuda.get_device_name()} does not have it; use float32")
    return getattr(torch, precision)


def _config_file(name: str) -> Path | None:
    """The model JSON a name stands for, or None for open_clip's own names."""
    packaged = PACKAGED / f"{name}.json"
    if packaged.is_file():
        return packaged
    path = Path(name).expanduser()
    if name.endswith(".json"):
        if not path.is_file():
            raise UserError(f"--backbone {name}: no such file; give an open_clip model JSON or a model name")
        return path
    if path.is_dir():
        raise UserError(f"--backbone {name} is a folder; give the model JSON inside it")
    return None


def _check_config(path: Path) -> None:
    try:
        config = from_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"--backbone {path.name}: not a readable JSON file: {error}") from error
    kinds = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    missing = [k for k, kind in kinds.items() if not isinstance(config, dict) or not isinstance(config.get(k), kind)]
    if missing:
        raise UserError(f"--backbone {path.name}: not an open_clip model configuration: no {', '.join(missing)}")
    if path.stem in OPEN_CLIPS_OWN:  # records and reports would take it for open_clip's
        raise UserError(f"--backbone {path.name}: {path.stem} is a name of open_clip's own; give the file another name")


def _register(config: Path) -> None:
    """Make the model known to open_clip under the file's name.

    open_clip reads all files it was ever given again at the next call: it gets a copy that is gone by then, so
    that a file which the user changes meanwhile harms no other.
    """
    with tempfile.TemporaryDirectory() as folder:
        open_clip.add_model_config(Path(shutil.copy(config, folder)))


def _tokenizer_options(config: Path) -> dict[str, Any]:
    """A vocabulary file named in the JSON stands beside the JSON, wherever the bench is started."""
    options = from_json(config.read_text(encoding="utf-8"))["text_cfg"].get("tokenizer_kwargs")
    if not isinstance(options, dict) or "bpe_path" not in options:
        return {}
    bpe = config.parent / str(options["bpe_path"])
    if bpe.resolve().parent != config.parent.resolve() or not bpe.is_file():
        raise UserError(f"--backbone {config.name}: bpe_path {options['bpe_path']!r} is not a file beside the JSON")
    return {"bpe_path": str(bpe)}


def _weights(model_name: str, pretrained: str | None) -> tuple[str | Path | None, dict[str, Any]]:
    """A tag, a file, or None for a model that brings its weights; and the options that these weights need."""
    if ":" in model_name:
        return None, {}
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if pretrained is None:
        hint = f"one of {', '.join(tags)} or a .safetensors file" if tags else "a .safetensors file"
        raise UserError(f"--backbone {model_name} needs --pretrained: {hint}")
    if pretrained in tags:
        # OpenAI's and a few other weights were trained with QuickGELU: open_clip only warns when the model
        # without "-quickgelu" is built with GELU, and every number would be off.
        quick = bool(open_clip.get_pretrained_cfg(model_name, pretrained).get("quick_gelu"))
        return pretrained, {"force_quick_gelu": quick}
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise UserError(
            f"--pretrained {pretrained!r} is neither a file nor a tag of {model_name}; {nearest(pretrained, tags)}"
        )
    if path.suffix != ".safetensors":
        raise UserError(
            f"--pretrained {path.name}: only .safetensors files are read (pickled weights can run code); "
            "convert once with safetensors.torch.save_file"
        )
    return path, {}


@contextlib.contextmanager
def _no_log() -> Iterator[None]:
    """Without open_clip's log lines: what goes wrong is said once, by the error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _fingerprint(model: Any, preprocessing: dict[str, Any], architecture: dict[str, Any], tokenizer: Any) -> str:
    """Changes with whatever changes a feature: weights, and how they are used (QuickGELU or heads leave no weight)."""
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    # A vocabulary file counts by its content, not by its name.
    text = {k: v for k, v in architecture.get("text_cfg", {}).items() if k != "tokenizer_kwargs"}
    settings = [preprocessing, {**architecture, "text_cfg": text}, getattr(tokenizer, "encoder", None)]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    if isinstance(error, ImportError) and error.name:
        return f"it needs the Python package {error.name!r}, which is not installed"
    if fit := misfit(error):
        return fit
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def _short(hint: str) -> str:
    return hint.split(" (valid:")[0] if "did you mean" in hint else "see `python -m bench list backbones`"
