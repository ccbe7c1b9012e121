"""Imports what the commands use, for processes that are forked from the one that imports it."""

import gc
import importlib
import pkgutil
import sys
import warnings

LATER = ("hotcoco", "matplotlib.pyplot", "pytest", "torch._dynamo")  # imported where used


def try_import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:  # of a package that is not installed: the command will say so
        sys.modules.pop(name, None)


with warnings.catch_warnings(action="ignore"):
    for room in ("harl_bench", "pretrain"):
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            try_import(module.name)
    for name in LATER:
        try_import(name)
gc.freeze()
