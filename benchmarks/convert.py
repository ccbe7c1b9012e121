"""Converting a checkpoint of 100 MB against reading and writing it with torch alone, in one run.

The rival is the least that any converter does: `torch.load` of the file and `pickle.dump` of its
tensors as NumPy arrays, without search, checks, proof or provenance. Each measurement is a process
of its own after torch is loaded: seconds, and the growth of the peak resident memory in multiples
of the file. `--profile` shows where ours spends it.

    python -m benchmarks.convert [--repeats 3] [--profile]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import json, re, sys, time
import numpy, torch, torchvision, harl_bench.convert.read, harl_bench.convert.write
from harl_bench.core.progress import set_up_logging
set_up_logging()
torch.set_num_threads(1)
source, out, what = sys.argv[1:]
kib = lambda name: int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
open("/proc/self/clear_refs", "w").write("5")  # forget the peak of importing
before, wall, cpu = kib("VmRSS"), time.perf_counter(), time.process_time()
if what == "torch":
    import pickle
    tensors = torch.load(source, weights_only=True)
    tensors = tensors.get("state_dict", tensors)
    with open(out, "wb") as file:
        pickle.dump({"model": {k: v.numpy() for k, v in tensors.items()}}, file, protocol=4)
else:
    from harl_bench.cli import main
    options = ["--inspect"] if what == "inspect" else ["--out", out]
    run = lambda: main(["convert", source, *options])
    if what == "profile":
        import cProfile, pstats
        profile = cProfile.Profile()
        profile.runcall(run)
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(12)
    else:
        assert run() == 0
seconds = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
row = seconds | {"bytes": kib("VmHWM") - before}
print("ROW " + json.dumps(row))
"""


def make(folder: Path) -> dict[str, Path]:
    """The same ResNet-50 in each container, and MoCo's file, which holds it twice."""
    import pickle

    import torch
    import torchvision
    from safetensors.torch import save_file

    state = torchvision.models.resnet50().state_dict()
    paths = {
        name: folder / name
        for name in ("zip.pth", "legacy.pth", "numpy.pkl", "x.safetensors", "moco.pth.tar")
    }
    torch.save(state, paths["zip.pth"])
    torch.save(state, paths["legacy.pth"], _use_new_zipfile_serialization=False)
    paths["numpy.pkl"].write_bytes(
        pickle.dumps({name: value.numpy() for name, value in state.items()})
    )
    save_file(state, paths["x.safetensors"])
    both = {
        f"module.encoder_{q}.{name}": value.clone() for q in "qk" for name, value in state.items()
    }
    torch.save({"epoch": 200, "state_dict": both}, paths["moco.pth.tar"])
    return paths


def measure(source: Path, what: str, repeats: int) -> dict[str, float]:
    """Medians over processes."""
    rows = []
    for _ in range(repeats):
        out = source.parent / "out.pkl"
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(source), str(out), what],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows.append(json.loads(done.stdout.rpartition("ROW ")[2]))
        out.unlink(missing_ok=True)
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def main() -> None:
    """Print one line a container."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder))
        if options.profile:
            measure(paths["zip.pth"], "profile", 1)
            return
        print(
            f"{'file':<15}{'MB':>6} "
            f"{'what':<9}{'s':>7}{'CPU s':>7}{'peak / file':>12}{'s / torch':>11}"
        )
        for name, path in paths.items():
            size = path.stat().st_size
            by_torch = name in ("zip.pth", "moco.pth.tar", "legacy.pth")
            rows = {
                what: measure(path, what, options.repeats)
                for what in (["torch"] if by_torch else []) + ["convert", "inspect"]
            }
            for what, row in rows.items():
                ratio = f"{row['cpu_s'] / rows['torch']['cpu_s']:.2f}" if by_torch else "-"
                print(
                    f"{name:<15}{size / 1e6:>6.0f} {what:<9}{row['s']:>7.2f}{row['cpu_s']:>7.2f}"
                    f"{row['bytes'] / size:>12.2f}{ratio:>11}"
                )


if __name__ == "__main__":
    main()
