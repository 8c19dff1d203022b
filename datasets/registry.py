"""The table of reader kinds a suite file may name."""

from __future__ import annotations

from bench.datasets.hub import read_huggingface, read_torchvision
from bench.datasets.lists import (
    read_cars,
    read_csv,
    read_fgvc,
    read_flowers,
    read_names,
    read_pets,
    read_sun397,
    read_ucf101,
)
from bench.datasets.readers import Reader, read_fashion20, read_folders, read_split_only

READERS: dict[str, Reader] = {
    "folders": Reader(
        read_folders,
        options={
            **{"exclude": list, "rename": dict, "strip": str, "camel": bool},
            **{"pool": list, "grouped": bool, "deep": bool, "parts": dict},
        },
    ),
    "csv": Reader(
        read_csv,
        options={"parts": dict, "image": str, "label": str, "suffix": str, "rename": dict},
        required=("parts", "image", "label"),
    ),
    "names": Reader(read_names, options={"pattern": str, "parts": dict, "rename": dict}, required=("pattern",)),
    "fashion20": Reader(read_fashion20, images="images", options={"task": int}, required=("task",)),
    "coop": Reader(read_split_only, options={"split": str, "task": int}, required=("split",)),
    "pets": Reader(read_pets, images="images"),
    "fgvc": Reader(read_fgvc, images="images"),
    "flowers": Reader(read_flowers, images="jpg"),
    "cars": Reader(read_cars),
    "sun397": Reader(read_sun397, images="SUN397"),
    "ucf101": Reader(read_ucf101, images="UCF-101-midframes"),
    "huggingface": Reader(
        read_huggingface,
        options={
            **{"hub": str, "config": str, "revision": str, "files": dict, "imagefolder": str},
            **{"image": str, "label": str, "parts": dict, "names": list},
        },
    ),
    "torchvision": Reader(read_torchvision, options={"class": str, "parts": dict, "names": list}, required=("class",)),
}
