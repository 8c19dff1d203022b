"""The table of reader kinds a suite file may name."""

from __future__ import annotations

from bench.datasets.hub import read_rows
from bench.datasets.imagenet import IMAGES, read_imagenet
from bench.datasets.lists import TEXT_LISTS, read_cars, read_csv, read_flowers, read_names
from bench.datasets.readers import Reader, read_fashion20, read_folders, read_split_only
from bench.datasets.taxa import read_taxa, tasks_of

READERS: dict[str, Reader] = {
    **{kind: Reader(lists.read, images=lists.images) for kind, lists in TEXT_LISTS.items()},
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
    "taxa": Reader(
        read_taxa,
        options={"level": str, "names": str, "least": int, "deal": int, "taxon": str},
        required=("level", "names"),
        many=tasks_of,
    ),
    "imagenet": Reader(read_imagenet, images=IMAGES, options={"parts": dict, "numbered": bool}),
    "flowers": Reader(read_flowers, images="jpg"),
    "cars": Reader(read_cars),
    "huggingface": Reader(
        read_rows,
        options={
            **{"hub": str, "config": str, "revision": str, "files": dict},
            **{"image": str, "label": str, "parts": dict, "names": list},
        },
    ),
    "torchvision": Reader(read_rows, options={"class": str, "parts": dict, "names": list}, required=("class",)),
}
