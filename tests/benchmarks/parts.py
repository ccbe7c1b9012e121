"""Parts that go wrong in every way, and one that works; light, as each process imports them."""

import os
import time

from benchmarks.gpu_check.measure import MissingError
from benchmarks.gpu_check.setting import Setting


def dies(setting: Setting) -> dict:
    os._exit(7)


def raises(setting: Setting) -> dict:
    raise ValueError("two\nlines")


def hangs(setting: Setting) -> dict:
    time.sleep(600)
    return {}


def lacks(setting: Setting) -> dict:
    raise MissingError("nothing is installed")


def works(setting: Setting, *, rate: float) -> dict:
    print("heard")
    return {"images_per_s": rate, "ms": os.getpid()}
