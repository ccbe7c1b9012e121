"""Numbers that say nothing about any method: on generated data, or by a recipe made to run in
minutes.

Generated data sets carry a file named TOY in their root, such recipes a name that ends in "-toy".
Whoever measures with either says so beside the number (`Result.toy`).
"""

import os
from pathlib import Path

MARKER = "TOY"
SENTENCE = "These data are generated. Numbers measured on them say nothing about any method."


def is_toy(data: str | os.PathLike[str], recipe: str = "") -> bool:
    """Whether the recipe is a toy, or the data: MARKER lies in their folder or up to two above."""
    if recipe.endswith("-toy"):
        return True
    path = Path(data).absolute()
    return any((folder / MARKER).is_file() for folder in (path, *list(path.parents)[:2]))
