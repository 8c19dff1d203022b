"""Suites, tasks, splits and few-shot draws: files and names, never models.

This folder is called `datasets` but its import name is `bench.datasets`. Python started in the repository's
root would also find it under the bare name, which belongs to Hugging Face's library: then it stands aside.
(`importlib.util.find_spec("datasets")` never runs this file, so there it still answers with this folder.)
"""

import importlib.util
import os
import sys


def _stand_aside() -> None:
    """Put the real `datasets` library in this module's place, or say that there is none."""
    here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    elsewhere = [entry for entry in sys.path if os.path.realpath(entry or os.getcwd()) != here]
    for finder in sys.meta_path:
        spec = finder.find_spec("datasets", elsewhere)
        # A spec without an origin is a plain folder of that name, not a library.
        if spec and spec.loader and spec.origin and os.path.realpath(spec.origin) != os.path.realpath(__file__):
            module = importlib.util.module_from_spec(spec)
            sys.modules["datasets"] = module
            spec.loader.exec_module(module)
            return
    raise ModuleNotFoundError("No module named 'datasets'", name="datasets")


if __name__ != "bench.datasets":
    _stand_aside()
else:
    from bench.datasets.fewshot import few_shot
    from bench.datasets.images import open_image
    from bench.datasets.spec import Suite, TaskSpec, load_suite, suite_names
    from bench.datasets.splits import Item, Split, Task, load_tasks

    __all__ = [
        "Item",
        "Split",
        "Suite",
        "Task",
        "TaskSpec",
        "few_shot",
        "load_suite",
        "load_tasks",
        "open_image",
        "suite_names",
    ]
