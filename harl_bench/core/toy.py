"""The mark of generated data: a file named TOY in the root of each generated data set.

Whoever measures on such data says so beside the number (`Result.toy`): it says nothing about any method.
"""

import os
from pathlib import Path

MARKER = "TOY"
SENTENCE = "These data are generated. Numbers measured on them say nothing about any method."


def is_toy(data: str | os.PathLike[str]) -> bool:
    """Whether a data folder (or file) is generated: it, or one of the two folders above it, holds the marker."""
    path = Path(data).absolute()
    return any((folder / MARKER).is_file() for folder in (path, *list(path.parents)[:2]))
