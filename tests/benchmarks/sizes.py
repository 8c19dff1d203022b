"""General-10's real sizes with made-up names and random features: what benchmarks of training work on."""

from __future__ import annotations

import torch

from bench.datasets.spec import load_suite
from bench.methods import TaskData

# From several of the suites' data sets, of one to five tokens.
NAMES = """
accordion, airplane, anchor, ant, barrel, binocular, brain, butterfly, camera, cannon, ceiling fan, cellphone, chair,
chandelier, cougar body, cougar face, crocodile head, cup, dalmatian, dollar bill, dolphin, dragonfly,
electric guitar, elephant, euphonium, ferry, flamingo head, gramophone, grand piano, headphone, helicopter,
inline skate, joshua tree, kangaroo, lamp, laptop, lobster, lotus, metronome, motorbike, nautilus, okapi, pizza,
platypus, pyramid, rooster, saxophone, scissors, sea horse, soccer ball, stapler, starfish, stop sign, strawberry,
trilobite, umbrella, water lily, wheelchair, wild cat, yin yang, annual crop land, herbaceous vegetation land,
highway or road, permanent crop land, sea or lake, apply eye makeup, baby crawling, balance beam, blow dry hair,
body weight squats, brushing teeth, front crawl, handstand pushups, ice dancing, mopping floor, playing violin,
rock climbing indoor, sumo wrestling, tai chi, uneven bars, pink primrose, globe thistle, bird of paradise,
love in the mist, black eyed susan, lenten rose, canterbury bells, apple pie, beef carpaccio, breakfast burrito,
chicken quesadilla, french onion soup, lobster roll sandwich, macaroni and cheese, american bulldog, english setter,
german shorthaired, great pyrenees, scottish terrier, yorkshire terrier
""".replace("\n", " ").strip().split(", ")

ADJECTIVES = ("red", "golden", "wild", "small", "american", "common", "spotted", "northern", "great", "black", "river")
NOUNS = ("cat", "retriever", "sparrow", "tulip", "airplane", "maple", "car", "church", "pizza", "desk", "fern")


def general10() -> list[int]:
    """Classes of each of its ten tasks; 1191 together."""
    return [task.n_classes or 0 for task in load_suite("general10").tasks]


def names(n: int) -> tuple[str, ...]:
    """n different class names, most of two to five tokens, as the suites' are.

    At General-10's sizes 24 % of the tokens are those that names of a task begin with alike; of the real names of seven
    of its tasks (593 classes) 26 %, nearly all StanfordCars'.
    """
    k = len(NOUNS)
    made = []
    for i in range(n):
        before = [ADJECTIVES[i // k % k]] * (i % 3 > 0) + [ADJECTIVES[i // k // k % k]] * (i % 2)
        made.append(" ".join([*before, NOUNS[i % k], *([str(i // k)] if i >= k else [])]))
    return tuple(made)


def tasks(sizes: list[int], embed: int, shots: int) -> list[TaskData]:
    """Few-shot sets of random features [2 views, classes · shots, embed]."""
    rng = torch.Generator().manual_seed(0)
    made = []
    for t, n in enumerate(sizes):
        labels = torch.arange(n).repeat(shots)
        views = torch.randn(2, len(labels), embed, generator=rng)
        task_name = f"recognition of things of kind {t}"
        made.append(TaskData(f"task {t}", task_name, names(n), "a photo of a {}.", views, labels))
    return made
