"""The command-line options that mean the same in every command.

`--debug` and `--verbose` are taken by cli.py before any command.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Group, Parameter, Token
from cyclopts.validators import Number

from harl_bench.core.errors import UsageError

COMMON = Group("Common", sort_key=1)
PROTOCOL = Group("Protocol", sort_key=2)
HARDWARE = Group("Hardware", sort_key=3)


def numbers(kind: Any, tokens: Sequence[Token]) -> list[Any]:
    """Return the numbers of a list option, with spaces or commas: `--seeds 0 1 2` or `0,1,2`."""
    (number,) = get_args(kind)
    texts = [text for token in tokens for text in token.value.replace(",", " ").split()]
    try:
        return [number(text) for text in texts or [""]]
    except ValueError:
        kind = "whole numbers" if number is int else "numbers"
        raise ValueError(f"not a list of {kind}: {' '.join(texts) or 'nothing'!r}") from None


def offering(names: Callable[[], Iterable[str]]) -> Parameter:
    """Return the parameter for whose value the shell offers these names, read when it asks."""
    return Parameter(completer=lambda _: list(names()))


def require_consistent(
    seeds: Sequence[int], lr: Sequence[float] | None, batch: int | None, *, scale_lr: bool
) -> None:
    """Raise a UsageError for --seeds, --lr, --batch and --scale-lr that contradict each other."""
    if len(set(seeds)) != len(seeds) or not seeds or min(seeds) < 0:
        raise UsageError("--seeds takes whole numbers from 0 up, each once", seen=list(seeds))
    if scale_lr and not batch:
        raise UsageError("--scale-lr goes with --batch", next="--batch 8 --scale-lr")
    if lr and len(set(lr)) != len(lr):
        raise UsageError("--lr takes each rate once", seen=list(lr))


def require_single(seeds: Sequence[int], lr: Sequence[float] | None) -> None:
    """Raise a UsageError for several --seeds, or --lr, with trained weights.

    Nothing is trained, so that each would be the same score, and their mean one without a spread.
    """
    if len(seeds) > 1 or lr:
        seen = f"--lr {' '.join(map(str, lr))}" if lr else f"--seeds {' '.join(map(str, seeds))}"
        what = "trained weights have one score, without seeds and rates"
        raise UsageError(what, seen=seen, next="give no --lr, and one seed or none")


DataRoot = Annotated[
    Path | None,
    Parameter(
        group=COMMON,
        help="Folder of all data sets (docs/data.md) or of this one; default $DETECTRON2_DATASETS.",
    ),
]
AllowUnreadable = Annotated[
    bool,
    Parameter(
        group=COMMON,
        negative="",
        help="Keep training when more than 1 % of the images cannot be read.",
    ),
]
Out = Annotated[Path, Parameter(group=COMMON, help="Folder of all runs.")]
Seeds = Annotated[
    list[int],
    Parameter(
        group=COMMON,
        consume_multiple=True,
        converter=numbers,
        validator=Number(gte=0, lt=2**32),  # as scikit-learn takes them
        help="One run per seed, e.g. --seeds 0 1 2.",
    ),
]
DryRun = Annotated[
    bool,
    Parameter(
        group=COMMON,
        show_default=False,
        help="Check everything and print the plan; start and write nothing.",
    ),
]
Fresh = Annotated[
    bool,
    Parameter(
        group=COMMON, show_default=False, help="Throw away an earlier, equal run and start over."
    ),
]
Gpus = Annotated[
    int | None,
    Parameter(
        group=HARDWARE,
        validator=Number(gte=0),
        help="How many GPUs to use (default: all visible; 0: CPU).",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], Parameter(group=HARDWARE, help="Where to compute.")
]
Workers = Annotated[
    int | None,
    Parameter(
        group=HARDWARE,
        validator=Number(gte=0),
        help="Processes that read data, for each GPU (default: all cores, shared out among the "
        "GPUs; on the CPU 2); 0 reads in the main process.",
    ),
]
Recipe = Annotated[str, Parameter(group=PROTOCOL, help="A shipped recipe's name, or a YAML file.")]
Net = Annotated[
    Literal["online", "momentum", "teacher", "student"] | None,
    Parameter(group=PROTOCOL, help="Which network of a checkpoint that holds several."),
]
Label = Annotated[
    str | None,
    Parameter(
        group=COMMON,
        help="Name of its row in the report (default: the method that the file states, else the "
        "file's name). A finished run takes it without being measured again.",
    ),
]
