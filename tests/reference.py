"""Prompt learning written plainly from the specification: what the bench is compared with.

Everything here is slow on purpose. Each sentence has all its 77 tokens and goes through open_clip's own
``encode_text``; every class of every task is encoded at every step; nothing is kept from one step to the next;
the optimiser is written out. No code of the bench is used.
"""

import math
from dataclasses import dataclass

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor

# ---- models ------------------------------------------------------------------------------------------------

TINY_VISION = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}


def random_clip(embed_dim: int, text_cfg: dict, quick_gelu: bool = False, custom: bool = False, seed: int = 0):
    """A frozen CLIP of random weights in which nothing is zero or one by accident; its image side is tiny."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build = CustomTextCLIP if custom else CLIP
        model = build(embed_dim, TINY_VISION, text_cfg, quick_gelu=quick_gelu)
        with torch.no_grad():
            text = model.text if custom else model
            text.positional_embedding.normal_(std=0.02)
            text.token_embedding.weight.normal_(std=0.03)
            for name, weight in (model.text if custom else model).named_parameters():
                if weight.dim() == 1 and not name.startswith("visual"):  # biases, LayerNorms, layer scales
                    weight += 0.1 * torch.randn_like(weight)
            model.logit_scale.fill_(math.log(50.0))
    return model.eval().requires_grad_(False)


def clip_tokenizer():
    return open_clip.get_tokenizer("RN50")


# ---- sentences ---------------------------------------------------------------------------------------------


def sentence(tokenizer, name: str, n_vectors: int, position: str, context_length: int) -> tuple[list[int], list[int]]:
    """The token ids of a prompt, and where its learned vectors stand; CoOp's three places of the class name."""
    tokens = tokenizer.encode(name + ".")
    name_length = len(tokenizer.encode(name))
    words, ending = tokens[:name_length], tokens[name_length:]
    x = tokenizer.encode("x")[0]  # CoOp, too, writes "X X X <name>." and puts the vectors over the Xs
    half = n_vectors // 2
    parts = {
        "end": [(n_vectors, [*words, *ending])],
        "middle": [(half, words), (n_vectors - half, ending)],
        "front": [(0, words), (n_vectors, ending)],
    }[position]
    ids, places = [tokenizer.sot_token_id], []
    for vectors, text in parts:
        places += range(len(ids), len(ids) + vectors)
        ids += [x] * vectors + text
    ids.append(tokenizer.eot_token_id)
    assert len(ids) <= context_length, "the sentence does not fit"
    return ids + [0] * (context_length - len(ids)), places


def encode(model, tokenizer, contexts: Tensor, names: list[str], position: str = "end") -> Tensor:
    """Text features [n, d], not normalised: context i [L, w] with name i, by the model's own forward."""
    sentences = [sentence(tokenizer, name, contexts.shape[1], position, model.context_length) for name in names]
    ids = torch.tensor([ids for ids, _ in sentences])
    rows = torch.arange(len(names))[:, None]
    places = torch.tensor([places for _, places in sentences], dtype=torch.long)

    def put_contexts(module, inputs, embedded):
        return embedded.index_put((rows, places), contexts)

    embedding = model.text.token_embedding if hasattr(model, "text") else model.token_embedding
    hook = embedding.register_forward_hook(put_contexts)
    try:
        return model.encode_text(ids)
    finally:
        hook.remove()


# ---- training ----------------------------------------------------------------------------------------------


@dataclass
class Task:
    """task_name, class names, raw image features [V, n, d] of the V training views, labels [n]."""

    task_name: str
    class_names: list[str]
    views: Tensor
    labels: Tensor


@dataclass
class Recipe:
    epochs: int = 50
    lr: float = 0.002
    first_lr: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 5e-4
    names: int = 1  # registered with the one optimiser and the one scheduler, which step once for each

    def learning_rate(self, epoch: int) -> float:
        """Of epoch 1, 2, …: the scheduler stands on its first, constant rate until its first step."""
        rate, taken = self.first_lr, 0
        for _ in range(epoch - 1):
            for _ in range(self.names):
                rate = self.lr * 0.5 * (1 + math.cos(math.pi * taken / self.epochs))
                taken += 1
        return rate


def coop(model, tokenizer, parameters, tasks):
    """One context a task: parameters["context"] is [T, L, w]."""
    return list(parameters["context"])


def shared_coop(model, tokenizer, parameters, tasks):
    """One context for all: parameters["context"] is [1, L, w]."""
    return [parameters["context"][0] for _ in tasks]


def softcpt(model, tokenizer, parameters, tasks):
    """f_t = E("u_1 … u_M <task name>."); the context of task t is f_t · P in L rows."""
    u, projection = parameters["task_context"], parameters["projection"]  # 1, M, w and d, L·w
    contexts = []
    for task in tasks:
        f = encode(model, tokenizer, u, [task.task_name])[0]
        contexts.append((f @ projection).reshape(-1, u.shape[2]))
    return contexts


def joint_loss(model, tokenizer, contexts, tasks, epoch, batch, position) -> Tensor:
    """Mean over the images of -log softmax(τ · cosine) over the classes of each image's own task."""
    text = []
    for task, context in zip(tasks, contexts, strict=True):
        each_class = context[None].expand(len(task.class_names), -1, -1)
        features = encode(model, tokenizer, each_class, task.class_names, position)
        text.append(features / features.norm(dim=1, keepdim=True))
    losses = []
    for t, i in batch:
        image = tasks[t].views[(epoch - 1) % len(tasks[t].views), i]
        logits = model.logit_scale.exp() * (text[t] @ (image / image.norm()))
        losses.append(logits.logsumexp(dim=0) - logits[tasks[t].labels[i]])
    return torch.stack(losses).mean()


def train(contexts_of, model, tokenizer, tasks, start, batches, recipe, position="end"):
    """Losses and parameters after given batches.

    contexts_of : `coop`, `shared_coop` or `softcpt`. start : parameters by name.
    batches : (epoch, [(task, image), …]), epoch from 1.
    """
    parameters = {name: value.detach().clone().requires_grad_(True) for name, value in start.items()}
    speed = {name: torch.zeros_like(value) for name, value in start.items()}
    losses = []
    for epoch, batch in batches:
        contexts = contexts_of(model, tokenizer, parameters, tasks)
        loss = joint_loss(model, tokenizer, contexts, tasks, epoch, batch, position)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                speed[name] = recipe.momentum * speed[name] + gradient + recipe.weight_decay * value
                value -= recipe.learning_rate(epoch) * speed[name]
    return losses, {name: value.detach() for name, value in parameters.items()}
