"""Record what the real mmsegmentation computes, for tests that run without it.

    python tests/golden/record_segmentation.py

needs mmsegmentation 1.2.2, mmcv-lite 2.1.0, mmengine, ftfy and regex beside harl-bench. Writes
tests/golden/segmentation/CASE.json: per quantity [sum, sum of absolute values, largest absolute
value, number of values]; of training crops the checksum of their bytes; learning rates; scores.
"""

import sys
import zlib
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import cv2  # noqa: E402
import torch  # noqa: E402

from tests.golden import mmseg_side  # noqa: E402
from tests.golden.digests import digests, write  # noqa: E402
from tests.segmentation import parity  # noqa: E402

MADE = {
    "mmsegmentation": version("mmsegmentation"),
    "mmcv-lite": version("mmcv-lite"),
    "mmengine": version("mmengine"),
    "opencv": cv2.__version__,
    "script": "tests/golden/record_segmentation.py",
}


def main() -> None:
    torch.set_num_threads(1)
    for name in parity.CASES:
        settings = parity.case_recipe(name)
        content = {"observed": digests(parity.observe(mmseg_side.theirs(settings)))}
        side = mmseg_side.theirs(settings)
        rates = mmseg_side.rates(parity.short(settings))
        content["trained"] = digests(parity.train(side, rates, settings))
        every = mmseg_side.rates(settings)
        marks = sorted({*range(0, len(every), 1000), *settings.solver.steps, len(every) - 1})
        content["rates"] = {str(k): every[k] for k in marks}
        if settings.input.scale_px:
            crops = mmseg_side.crops(settings)
            content["crops"] = {
                str(seed): [zlib.crc32(part.tobytes()) for part in pair]
                for seed, pair in enumerate(crops)
            }
        write(HERE / "segmentation" / f"{name}.json", MADE, content)
    write(HERE / "segmentation/scores.json", MADE, {"scores": mmseg_side.scores()})


if __name__ == "__main__":
    main()
