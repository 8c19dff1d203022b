"""ProGrad: cross-entropy's gradient, without its part that goes against zero-shot CLIP's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods.prograd import ProGrad

sys.path.append(str(Path(__file__).parent))
from test_methods_all import NAMES, Images, Parameters, check_steps, cross_entropy, fit, world

pytestmark = pytest.mark.usefixtures("one_thread")


def losses(parameters: Parameters, images: Images) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, and mean KL(zero-shot ‖ learned), image by image."""
    t = images[0][0]
    text, taught = world().text(parameters["context"], NAMES[t]), world().written(t)
    errors, distances = [], []
    for _, image, label in images:
        learned, teacher = world().scale * text @ image, world().scale * taught @ image
        errors.append(cross_entropy(learned, label))
        p, q = (logits.exp() / logits.exp().sum() for logits in (teacher.double(), learned.double()))
        distances.append((p * (p.log() - q.log())).sum().float())
    return torch.stack(errors).mean(), torch.stack(distances).mean()


def test_ten_steps_are_those_of_the_plain_formula_both_where_gradients_agree_and_where_not() -> None:
    cosines = []

    def gradients(parameters: Parameters, images: Images) -> list[Tensor]:
        error, distance = losses(parameters, images)
        (g,) = torch.autograd.grad(error, [parameters["context"]], retain_graph=True)
        (k,) = torch.autograd.grad(distance, [parameters["context"]])
        cosines.append(float((g * k).sum() / g.norm() / k.norm()))
        if cosines[-1] < 0:
            g = g - (g * k).sum() / (k * k).sum() * k
        return [g]

    check_steps("prograd", lambda parameters, images: losses(parameters, images)[0], gradients)
    assert min(cosines) < -0.05 and max(cosines) > 0.05


def test_no_share_taken_out_is_coop() -> None:
    check_steps("prograd", lambda parameters, images: losses(parameters, images)[0], projection=0.0)


def test_words_may_be_fewer_than_vectors_with_zeros_before_them() -> None:
    """As the public code starts: "a texture of" is the last three of the vectors, the others are 0."""
    by_task = {"task 1": {"words": "a texture of"}}
    _, start, _ = fit("prograd", world(), epochs=1, by_task=by_task, words="a photo of a", zeros=True, context=6)

    def vectors(words: str) -> Tensor:
        return world().model.token_embedding(torch.tensor(world().tokenizer.encode(words))).detach()

    for t, words, zeros in ((0, "a photo of a", 2), (1, "a texture of", 3), (2, "a photo of a", 2)):
        context = start[f"context-{t}"]
        assert context.shape[:2] == (1, 6)
        assert not context[0, :zeros].any() and torch.equal(context[0, zeros:], vectors(words))
    with pytest.raises(UserError, match="words='a photo of a' are 4 tokens, context=6: make them equal"):
        fit("prograd", world(), epochs=1, words="a photo of a", context=6)
    with pytest.raises(UserError, match="words='a photo of a' are 4 tokens, context=3: make them equal"):
        fit("prograd", world(), epochs=1, words="a photo of a", zeros=True, context=3)


def test_each_task_has_its_own_share_and_teacher() -> None:
    """λ = 0.5 on task 0, 0 on task 1, the default 1 on task 2; task 1 learns from another sentence."""
    by_task = {"task 0": {"projection": 0.5}, "task 1": {"projection": 0.0}, "task 2": {"template": "my {} there"}}
    opposed = set()

    def two_losses(parameters: Parameters, images: Images) -> tuple[Tensor, Tensor]:
        t = images[0][0]
        if t != 2:
            return losses(parameters, images)
        sentences = [f"my {name} there" for name in NAMES[2]]
        taught = world().model.encode_text(world().tokenizer(sentences))
        taught = taught / taught.norm(dim=1, keepdim=True)
        text = world().text(parameters["context"], NAMES[t])
        distances = []
        for _, image, _ in images:
            p = (world().scale * taught @ image).double().softmax(0)
            q = (world().scale * text @ image).double().softmax(0)
            distances.append((p * (p.log() - q.log())).sum().float())
        return losses(parameters, images)[0], torch.stack(distances).mean()

    def gradients(parameters: Parameters, images: Images) -> list[Tensor]:
        error, distance = two_losses(parameters, images)
        (g,) = torch.autograd.grad(error, [parameters["context"]], retain_graph=True)
        (k,) = torch.autograd.grad(distance, [parameters["context"]])
        share = (0.5, 0.0, 1.0)[images[0][0]]
        if (g * k).sum() < 0:
            opposed.add(images[0][0])
            g = g - share * (g * k).sum() / (k * k).sum() * k
        return [g]

    check_steps("prograd", lambda parameters, images: losses(parameters, images)[0], gradients, by_task=by_task)
    assert opposed == {0, 1, 2}  # so that each share is seen


def test_tasks_with_one_gradient_have_one_share() -> None:
    with pytest.raises(UserError, match="with joint=true all tasks have one gradient and one share"):
        fit("prograd", world(), epochs=1, by_task={"task 0": {"projection": 0.5}}, joint=True)


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{name} here", "{0}", "a {}}"])
def test_a_template_has_one_place_for_the_name(template: str) -> None:
    with pytest.raises(UserError, match=r"template='.*': write one with one \{\}"):
        ProGrad.Params(template=template)
