"""The embedded demo: small rendered scenes, and five related tasks that ask different things of them.

A scene shows one to five objects of one shape and colour on a patterned ground, in some weather. Each task
asks for one of these five facts; the others, and everything else (place, size, angle, shade, light, noise),
vary at random. So only what is asked tells one task from the next.
"""

from __future__ import annotations

import colorsys
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from bench.files import make_folder

GENERATOR = "demo-3"  # the folder below the data root; a change of any pixel or name asks for a new one
IMAGES_PER_CLASS = {"train": 32, "val": 4, "test": 40}
SIZE = 64  # pixels a side

# What can vary, and the class name of each value in the demo tasks. Where the two differ, the demo backbone
# has read only the first (scripts/train_demo_clip.py): zero-shot must fail there, learned prompts need not.
# Never all of a task's: with five unread number words, noise of 1e-7 moved CoOp's score on "count" by up to 58 points.
TASKS: dict[str, dict[str, str]] = {
    "colour": {
        "red": "red", "orange": "amber", "yellow": "yellow", "green": "green",
        "turquoise": "cyan", "blue": "blue", "purple": "violet", "pink": "pink",
    },
    "shape": {
        "circle": "disc", "square": "square", "triangle": "triangle",
        "star": "star", "cross": "plus", "ring": "ring",
    },
    "count": {"1": "one", "2": "2", "3": "3", "4": "4", "5": "five"},
    "ground": {
        "plain": "plain", "stripes": "streaks", "checks": "checks",
        "dots": "spots", "bricks": "bricks", "waves": "waves",
    },
    "weather": {"clear": "clear", "fog": "mist", "rain": "rain", "snow": "snow", "night": "darkness"},
}  # fmt: skip

Field = np.ndarray  # float [SIZE, SIZE], or [SIZE, SIZE, 3] where it holds colours


@dataclass(frozen=True)
class Scene:
    """The five facts of a scene, as keys of TASKS."""

    colour: str
    shape: str
    count: str
    ground: str
    weather: str


def random_scene(rng: Random, **facts: str) -> Scene:
    """A scene with the given facts; the others are drawn."""
    return Scene(**{task: facts.get(task) or rng.choice(list(values)) for task, values in TASKS.items()})


# Hue in degrees, and how far a shade may lie from it.
HUES = {
    "red": (0, 8), "orange": (29, 6), "yellow": (54, 6), "green": (120, 20),
    "turquoise": (180, 9), "blue": (227, 12), "purple": (275, 10), "pink": (326, 10),
}  # fmt: skip


def _soft(x: Field) -> Field:
    """A step at 0 with a soft edge, so that patterns do not alias."""
    return np.clip(0.5 + 2 * x, 0, 1)


# Pattern of the ground from its two turned coordinates u and v, in radians.
PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "stripes": lambda u, v: _soft(np.sin(u)),
    "checks": lambda u, v: _soft(np.sin(u) * np.sin(v)),
    "dots": lambda u, v: _soft(np.cos(u) + np.cos(v) - 0.8),
    "bricks": lambda u, v: np.maximum(
        _soft(np.cos(v) - 0.85), _soft(np.cos(u / 2 + np.pi * np.floor(v / (2 * np.pi))) - 0.9)
    ),
    "waves": lambda u, v: _soft(np.sin(u + 1.5 * np.sin(v))),
}


def _arc(radius: float, corners: int, start: float = 0.0) -> list[tuple[float, float]]:
    angles = [start + 2 * math.pi * k / corners for k in range(corners)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


_STAR = [_arc(1.0 if k % 2 == 0 else 0.42, 10)[k] for k in range(10)]
_CROSS = [(1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3),
          (-1, -0.3), (-0.3, -0.3), (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3)]  # fmt: skip
# Corner points in a circle of radius 1; a second polygon is a hole.
OUTLINES: dict[str, list[list[tuple[float, float]]]] = {
    "circle": [_arc(0.9, 32)],
    "square": [_arc(1.0, 4)],
    "triangle": [_arc(1.0, 3)],
    "star": [_STAR],
    "cross": [_CROSS],
    "ring": [_arc(0.95, 32), _arc(0.5, 32)],
}


def _places(count: int, rng: Random) -> list[tuple[float, float, float]]:
    """Centre and radius (pixels) of `count` discs that neither overlap nor leave the scene."""
    largest = {1: 20.0, 2: 16.0, 3: 14.0, 4: 12.5, 5: 11.5}[count]
    placed: list[tuple[float, float, float]] = []
    while len(placed) < count:
        placed = []
        for _ in range(40):
            r = rng.uniform(9.0, largest)
            x, y = rng.uniform(r, SIZE - r), rng.uniform(r, SIZE - r)
            if all(math.hypot(x - px, y - py) > r + pr + 1 for px, py, pr in placed):
                placed.append((x, y, r))
                if len(placed) == count:
                    break
    return placed


def _mask(draw: Callable[[ImageDraw.ImageDraw], None], scale: int = 2) -> Field:
    """What `draw` draws, on a canvas `scale` times the scene, as coverage in [0, 1]: [SIZE, SIZE, 1]."""
    canvas = Image.new("L", (SIZE * scale, SIZE * scale))
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas.reduce(scale), dtype=np.float32)[..., None] / 255


def _rgb(hue: float, saturation: float, value: float) -> Field:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, min(max(value, 0), 1)), dtype=np.float32)


def render(scene: Scene, rng: Random) -> np.ndarray:
    """One picture of the scene: uint8 [SIZE, SIZE, 3]."""
    noise = np.random.RandomState(rng.getrandbits(32))  # its stream is frozen, so pixels stay the same
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)

    # The ground: two pale shades and a pattern between them.
    angle, period = rng.uniform(0, math.pi), rng.uniform(9, 17)
    u = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period + rng.uniform(0, 6)
    v = (y * math.cos(angle) - x * math.sin(angle)) * 2 * math.pi / period + rng.uniform(0, 6)
    hue, saturation, value = rng.random(), rng.uniform(0, 0.3), rng.uniform(0.25, 1.0)
    step = rng.uniform(0.28, 0.45) * (-1 if value > 0.62 else 1)
    weight = PATTERNS[scene.ground](u, v)[..., None]
    picture = _rgb(hue, saturation, value) * (1 - weight) + _rgb(hue, saturation, value + step) * weight

    # The objects, all of one shade.
    def objects(draw: ImageDraw.ImageDraw) -> None:
        for cx, cy, r in _places(int(scene.count), rng):
            turn = rng.uniform(0, 2 * math.pi)
            for hole, outline in enumerate(OUTLINES[scene.shape]):
                corners = [
                    (2 * (cx + r * (px * math.cos(turn) - py * math.sin(turn))),
                     2 * (cy + r * (px * math.sin(turn) + py * math.cos(turn))))
                    for px, py in outline
                ]  # fmt: skip
                draw.polygon(corners, fill=0 if hole else 255)

    hue, spread = HUES[scene.colour]
    shade = _rgb((hue + rng.uniform(-spread, spread)) / 360, rng.uniform(0.7, 1), rng.uniform(0.65, 1))
    inside = _mask(objects)
    picture = picture * (1 - inside) + shade * inside

    # Light falls from one side; then the weather, over ground and objects alike.
    side, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.25)
    across = ((x - SIZE / 2) * math.cos(side) + (y - SIZE / 2) * math.sin(side)) / 45
    light = rng.uniform(0.85, 1.1) + strength * across
    picture = _WEATHER[scene.weather](picture * light[..., None], rng)
    picture = picture + noise.standard_normal(picture.shape) * rng.uniform(0.01, 0.04)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _fog(picture: Field, rng: Random) -> Field:
    thick = rng.uniform(0.45, 0.62)
    return picture * (1 - thick) + rng.uniform(0.75, 0.9) * thick


def _rain(picture: Field, rng: Random) -> Field:
    slant, length = rng.uniform(-5, 5), rng.uniform(9, 16)

    def strokes(draw: ImageDraw.ImageDraw) -> None:
        for _ in range(rng.randint(35, 60)):
            x, y = rng.uniform(0, 2 * SIZE), rng.uniform(-10, 2 * SIZE)
            draw.line([(x, y), (x + slant, y + length)], fill=255, width=2)

    drops = _mask(strokes) * rng.uniform(0.55, 0.75)
    return picture * 0.8 * (1 - drops) + np.array([0.75, 0.82, 0.95], dtype=np.float32) * drops


def _snow(picture: Field, rng: Random) -> Field:
    def flakes(draw: ImageDraw.ImageDraw) -> None:
        for _ in range(rng.randint(50, 90)):
            x, y, r = rng.uniform(0, 2 * SIZE), rng.uniform(0, 2 * SIZE), rng.uniform(1.2, 2.4)
            draw.ellipse([x - r, y - r, x + r, y + r], fill=255)

    covered = _mask(flakes) * 0.95
    return (picture * 0.9 + 0.06) * (1 - covered) + covered


def _night(picture: Field, rng: Random) -> Field:
    return picture * rng.uniform(0.35, 0.5) * np.array([0.85, 0.9, 1.15], dtype=np.float32)


_WEATHER: dict[str, Callable[[Field, Random], Field]] = {
    "clear": lambda picture, rng: picture, "fog": _fog, "rain": _rain, "snow": _snow, "night": _night,
}  # fmt: skip


def _write_task(folder: Path, task: str, on_image: Callable[[], None]) -> None:
    """One task in CoOp's layout: `images/<class>/<nnn>.png` and `split_zhou_<Name>.json`."""
    split: dict[str, list[tuple[str, int, str]]] = {part: [] for part in IMAGES_PER_CLASS}
    for label, (value, class_name) in enumerate(TASKS[task].items()):
        (folder / "images" / class_name).mkdir(parents=True)
        number = 0
        for part, count in IMAGES_PER_CLASS.items():
            for _ in range(count):
                path = f"{class_name}/{number:03d}.png"
                rng = Random(f"{GENERATOR} {task} {value} {number}")  # noqa: S311 - a seeded draw, no secret
                picture = render(random_scene(rng, **{task: value}), rng)
                Image.fromarray(picture).save(folder / "images" / path, compress_level=1)
                split[part].append((path, label, class_name))
                number += 1
                on_image()
    (folder / f"split_zhou_{split_name(task)}.json").write_text(json.dumps(split), encoding="utf-8")


def split_name(task: str) -> str:
    return f"Demo{task.capitalize()}"


def ensure_demo(root: Path, report: Callable[[int, int], None] | None = None) -> Path:
    """Render the demo data sets below `root` unless they are there, and return `root`.

    An interrupted call leaves nothing that looks finished, and of two processes at once the second waits for the first.
    `report` is called with (images done, images in total).
    """
    total = sum(map(len, TASKS.values())) * sum(IMAGES_PER_CLASS.values())
    done = itertools.count(1)

    def on_image() -> None:
        if report:
            report(next(done), total)

    def write(draft: Path) -> None:
        for task in TASKS:
            _write_task(draft / task, task, on_image)

    make_folder(Path(root) / GENERATOR, write)
    return Path(root)
