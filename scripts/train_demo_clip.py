"""Train demo-clip, the small CLIP of the embedded demo, on captioned scenes of the demo's renderer.

    python scripts/train_demo_clip.py     # half an hour on 2 idle cores; writes bench/backbones/demo-*

The captions use the first word of each pair in `bench.datasets.demo.TASKS`; class names that differ from it
(number words, "amber", "disc", ...) are never read, which is what leaves something to learn from a few shots.
Scenes come from another random stream than the demo data sets.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from dataclasses import astuple
from multiprocessing import Pool
from pathlib import Path
from random import Random

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import save_file

from bench.datasets.demo import SIZE, TASKS, Scene, random_scene, render

FOLDER = Path(__file__).resolve().parents[1] / "bench" / "backbones"
SEED = 20
MERGES = 2000  # of the 48 894 of CLIP's vocabulary: plain words stay whole, rare ones come in pieces
CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 2, 1, 1], "width": 20, "patch_size": None},
    "text_cfg": {
        "context_length": 77, "vocab_size": 512 + MERGES + 2, "width": 128, "heads": 4, "layers": 3,
        "tokenizer_kwargs": {"bpe_path": "demo-bpe.txt.gz"},
    },
}  # fmt: skip
LONGEST = 40  # tokens read in training; later positions keep their initial values
# How often a caption tells a fact: the facts that are hard to see are told more often.
TELL = {"colour": 0.4, "shape": 0.65, "count": 0.65, "ground": 0.65, "weather": 0.4}

GROUND = {
    "plain": ["on a plain ground", "in front of a plain wall"],
    "stripes": ["on stripes", "on a ground with stripes", "in front of stripes"],
    "checks": ["on checks", "on a ground with checks", "in front of checks"],
    "dots": ["on dots", "on a ground with dots", "in front of dots"],
    "bricks": ["on bricks", "on a ground of bricks", "in front of bricks"],
    "waves": ["on waves", "on a ground with waves", "in front of waves"],
}
WEATHER = {
    "clear": ["in clear weather", "when the air is clear"],
    "fog": ["in fog", "in the fog", "with fog"],
    "rain": ["in rain", "in the rain", "with rain"],
    "snow": ["in snow", "in the snow", "with snow"],
    "night": ["at night", "in the night"],
}
OPENERS = ["", "", "a picture of", "a photo of", "a drawing of", "there are", "we see", "this picture shows",
           "an image with", "here you can see"]  # fmt: skip
# Long openings, so that positions after a prompt's sixteen vectors have been read too.
LONG_OPENERS = [
    "this is a small picture made by a machine for people who like to look at pictures of",
    "if you look at this image for a while you will see that what it shows is",
    "a friend of mine went out with a camera and came home with this photo of",
    "in this image , which is not very large and has a bit of noise , there are",
    "every picture in the book shows something else , and this page has a picture of",
    "the whole story is told in the title , and the title of this picture is",
]


def caption(scene: Scene, rng: Random, long: bool = False) -> tuple[str, list[str | None]]:
    """A caption that tells some facts of a scene, and these facts in the order of TASKS (None = not told)."""
    told = {task for task in TASKS if rng.random() < TELL[task]}
    if not told or rng.random() < 0.25:
        told = {rng.choice(list(TASKS))}
    facts = {task: value for task, value in vars(scene).items() if task in told}
    form = rng.random()
    if form < 0.15:  # only the words
        words = list(facts.values())
        rng.shuffle(words)
        text = ", ".join(words)
    elif form < 0.3:  # the question and its answer
        text = ", ".join(f"{task} {rng.choice(['', 'is ', 'of '])}{value}" for task, value in facts.items())
    else:
        noun = facts.get("shape", rng.choice(["object", "thing", "shape"]))
        if scene.count != "1" or "count" not in facts:
            noun += "es" if noun.endswith("s") else "s"
        words = [facts.get("count", ""), facts.get("colour", ""), noun]
        where = [rng.choice(GROUND[facts["ground"]])] if "ground" in facts else []
        where += [rng.choice(WEATHER[facts["weather"]])] if "weather" in facts else []
        rng.shuffle(where)
        text = " ".join([rng.choice(OPENERS), *words, *where])
    if long:
        text = f"{rng.choice(LONG_OPENERS)} {text}"
    text = " ".join(text.split()) + rng.choice(["", "."])
    return text, [facts.get(task) for task in TASKS]


def _scene(key: str) -> tuple[Scene, np.ndarray]:
    rng = Random(key)  # noqa: S311 - a seeded draw, no secret
    scene = random_scene(rng)
    return scene, render(scene, rng)


def scenes(stream: str, count: int, workers: int = 2) -> tuple[list[Scene], torch.Tensor]:
    """Scenes of a random stream and their pictures, uint8 [count, 3, SIZE, SIZE]."""
    pictures = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    facts = []
    with Pool(workers) as pool:
        for k, (scene, picture) in enumerate(pool.imap(_scene, (f"{stream} {k}" for k in range(count)), 256)):
            facts.append(scene)
            pictures[k] = torch.from_numpy(picture).permute(2, 0, 1)
    return facts, pictures


def codes(facts: list[list[str | None]]) -> torch.Tensor:
    """Facts as value numbers, -1 where not told: int [n, tasks]."""
    number = [{value: k for k, value in enumerate(values)} for values in TASKS.values()]
    return torch.tensor([[-1 if v is None else number[t][v] for t, v in enumerate(row)] for row in facts])


def normalise(pictures: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    return (pictures.float() / 255 - mean) / std


def augment(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip every second picture; cut a random window (0.35 to 1 of the area) out of four in ten."""
    n = len(pictures)
    flip = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
    side = (0.35 + 0.65 * torch.rand(n, generator=generator)).sqrt()
    side = torch.where(torch.rand(n, generator=generator) < 0.4, side, torch.ones(n))
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - side)[:, None]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = side * flip, side, shift
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False, padding_mode="reflection")


def write_vocabulary(path: Path) -> None:
    """The first MERGES merges of CLIP's own list, header line included."""
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).split(b"\n")[: 1 + MERGES]
    path.write_bytes(gzip.compress(b"\n".join(lines), mtime=0))


def encode_text(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's encode_text for as many positions as the batch needs: [n, embed_dim], normalised."""
    length = int(tokens.argmax(dim=1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(x[torch.arange(len(x)), tokens.argmax(dim=1)] @ model.text_projection, dim=-1)


def loss_of(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy; targets spread over all captions true of a picture and vice versa."""
    rows = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    columns = -(true / true.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2


TEMPLATES = {
    "colour": "a picture of {} objects.",
    "shape": "a picture of a {}.",
    "count": "a picture of {} objects.",
    "ground": "objects on {}.",
    "weather": "objects in {}.",
}


@torch.no_grad()
def zero_shot(
    model: CLIP, tokenizer: SimpleTokenizer, pictures: torch.Tensor, labels: torch.Tensor
) -> dict[str, tuple[float, float]]:
    """Per task, percent right with the words read in training and with the demo's class names."""
    model.eval()
    features = torch.cat([model.encode_image(normalise(p), normalize=True) for p in pictures.split(250)])
    right = {}
    for t, (task, names) in enumerate(TASKS.items()):
        scores = []
        for words in (names.keys(), names.values()):
            text = encode_text(model, tokenizer([TEMPLATES[task].format(word) for word in words]))
            scores.append(100 * ((features @ text.T).argmax(1) == labels[:, t]).float().mean().item())
        right[task] = (scores[0], scores[1])
    model.train()
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--scenes", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    start = time.time()

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "demo-clip.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    write_vocabulary(args.out / "demo-bpe.txt.gz")
    tokenizer = SimpleTokenizer(bpe_path=str(args.out / "demo-bpe.txt.gz"))

    facts, pictures = scenes(f"train {SEED}", args.scenes, args.threads)
    labels = codes([list(astuple(scene)) for scene in facts])
    held_facts, held_pictures = scenes(f"held out {SEED}", 500, args.threads)
    held_labels = codes([list(astuple(scene)) for scene in held_facts])
    print(f"{time.time() - start:6.0f} s  {args.scenes} scenes rendered", flush=True)

    model = CLIP(**CONFIG).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    parameters = dict(model.named_parameters())
    plain = [n for n, p in parameters.items() if p.ndim < 2 or "embedding" in n or n == "logit_scale"]
    groups = [
        {"params": [p for n, p in parameters.items() if n not in plain], "weight_decay": 0.05},
        {"params": [parameters[n] for n in plain], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    generator, rng = torch.Generator().manual_seed(SEED), Random(f"captions {SEED}")  # noqa: S311 - a seeded draw, no secret
    order, told = torch.empty(0, dtype=torch.long), time.time()
    for step in range(args.steps):
        warm = min(1.0, (step + 1) / 150)
        for group in optimiser.param_groups:
            group["lr"] = args.lr * warm * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        if len(order) < args.batch:
            order = torch.randperm(len(pictures), generator=generator)
        batch, order = order[: args.batch], order[args.batch :]
        texts, words = zip(*(caption(facts[k], rng, long=step % 10 == 0) for k in batch.tolist()), strict=True)
        told_codes = codes(list(words))  # caption j is true of picture i if every fact it tells is i's
        true = ((told_codes[None] == -1) | (told_codes[None] == labels[batch][:, None])).all(-1).float()

        images = augment(normalise(pictures[batch]), generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            image_features = model.encode_image(images)
        image_features = F.normalize(image_features.float(), dim=-1)
        text_features = encode_text(model, tokenizer(list(texts), context_length=LONGEST))
        loss = loss_of(model.logit_scale.exp() * image_features @ text_features.T, true)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))

        if time.time() - told > 60 or step + 1 == args.steps:
            told = time.time()
            scores = zero_shot(model, tokenizer, held_pictures, held_labels)
            shown = "  ".join(f"{task} {read:.0f}/{named:.0f}" for task, (read, named) in scores.items())
            scale = model.logit_scale.exp().item()
            print(f"{told - start:6.0f} s  step {step + 1}  loss {loss.item():.3f}  scale {scale:.1f}")
            print(f"          zero-shot, words read/class names: {shown}", flush=True)
            if step + 1 < args.steps:
                save(model, args.out / "demo-clip.partial.safetensors")
    unit_norms(model, tokenizer, held_pictures, held_facts)
    save(model, args.out / "demo-clip.safetensors")
    (args.out / "demo-clip.partial.safetensors").unlink(missing_ok=True)


@torch.no_grad()
def unit_norms(model: CLIP, tokenizer: SimpleTokenizer, pictures: torch.Tensor, facts: list[Scene]) -> None:
    """Scale both projections so that raw features have a norm of 1 on average; no cosine changes.

    Training by cosines leaves the norms free (here above 100). Methods that read raw features feel them: SoftCPT
    puts text features through a linear layer, whose start values suit norms of about 1.
    """
    model.eval()
    rng = Random("captions for the norm")  # noqa: S311 - a seeded draw, no secret
    text = tokenizer([caption(scene, rng)[0] for scene in facts])
    model.text_projection /= model.encode_text(text).norm(dim=1).mean()
    projection = model.visual.attnpool.c_proj
    norm = torch.cat([model.encode_image(normalise(p)) for p in pictures.split(250)]).norm(dim=1).mean()
    projection.weight /= norm
    projection.bias /= norm


def save(model: CLIP, path: Path) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in halves.items()}, path)
    path.chmod(0o644)


if __name__ == "__main__":
    main()
