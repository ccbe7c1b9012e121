"""The command table of `harl-bench`: names, one line of help each, and where the function lives.

Nothing heavy is imported here; a command's module is imported when it is called, and torch only by
those that compute.
"""

import os
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, Group, Parameter
from cyclopts.config import Env, Yaml
from cyclopts.exceptions import CycloptsError

import harl_bench
from harl_bench.core.errors import INTERRUPTED, UsageError, explained
from harl_bench.core.lookup import lookup, unknown
from harl_bench.core.stopping import KEPT, leave_signals_to_the_parent, terminable

START, MAKE, MEASURE, SHOW = (
    Group(name, sort_key=order)
    for order, name in enumerate(("Start", "Pretrain", "Measure", "Show"))
)
COMMANDS = {
    "demo": (
        "harl_bench.demo:demo",
        START,
        "The whole path on generated data, in minutes on a laptop.",
    ),
    "doctor": ("harl_bench.doctor:doctor", START, "Check machine, packages and data sets."),
    "toy-data": (
        "harl_bench.toydata.run:toy_data",
        START,
        "Generate small data sets in the true formats.",
    ),
    "pretrain": (
        "pretrain.run:pretrain",
        MAKE,
        "Train a ResNet-50 without labels: HARL and its baselines.",
    ),
    "convert": (
        "harl_bench.convert.run:convert",
        MEASURE,
        "Any ResNet-50 checkpoint into Detectron2's format.",
    ),
    "voc": ("harl_bench.detection.run:voc", MEASURE, "Detection on PASCAL VOC 07+12."),
    "coco": ("harl_bench.detection.run:coco", MEASURE, "Detection and segmentation on COCO."),
    "cityscapes": (
        "harl_bench.detection.run:cityscapes",
        MEASURE,
        "Instance segmentation on Cityscapes.",
    ),
    "segment": (
        "harl_bench.segmentation.run:segment",
        MEASURE,
        "Semantic segmentation on VOC 2012 + SBD and Cityscapes.",
    ),
    "classify": ("harl_bench.classify.run:classify", MEASURE, "Classification on frozen features."),
    "run": ("harl_bench.suite.run:run", MEASURE, "A whole suite: checkpoints x tasks x seeds."),
    "report": (
        "harl_bench.report.run:report",
        SHOW,
        "Tables and one HTML page from finished runs.",
    ),
    "ls": ("harl_bench.report.run:ls", SHOW, "State of every run below a folder."),
    "completion": (
        "harl_bench.completion:completion",
        SHOW,
        "Completion by TAB in bash, zsh and fish: print or install it.",
    ),
}
MASKS = {
    "make": ("harl_bench.masks.run:make", "Foreground masks for a folder of images."),
    "fit": ("harl_bench.masks.fit_run:fit", "Train a mask maker's scorer."),
    "evaluate": ("harl_bench.masks.evaluate_run:evaluate", "Score masks against ground truth."),
}
NUMBER_LISTS = {"--seeds", "--lr"}
SETTINGS = "harl-bench.yaml"
ASKED = "__complete"  # by a shell, through cyclopts' completion script: which words may come next?
TAKEN = {"--debug", "--verbose"}  # by main, before any command
EVERYWHERE = (
    "Every command takes `--debug`, which shows the traceback of an error, and `--verbose`: "
    "scores of each class, and with `--dry-run` the settings."
)


def build(called: str | None = None) -> App:
    """Return the cyclopts application. Precedence: recipe < harl-bench.yaml < HARL_BENCH_* < flags.

    Args:
        called: the command about to run: its own docstring is its help page, the others keep their
            line in the table.
    """
    app = App(
        name="harl-bench",
        help=(
            "One tool for the transfer benchmarks of self-supervised ResNet-50s: from images to "
            "the paper's tables."
            "\n\nTry: `harl-bench demo`"
        ),
        version=harl_bench.__version__,
        config=[Env("HARL_BENCH_"), Yaml(SETTINGS, must_exist=False)],
        default_parameter=Parameter(show_env_var=False, negative=""),
        suppress_keyboard_interrupt=False,
        help_epilogue=EVERYWHERE,
    )
    for name, (target, group, text) in COMMANDS.items():
        app.command(target, name=name, group=group, **({} if name == called else {"help": text}))
    masks = App(name="masks", group=MAKE, help="Heuristic foreground masks: make, fit, evaluate.")
    for name, (target, text) in MASKS.items():
        masks.command(target, name=name, **({} if f"masks {name}" == called else {"help": text}))
    app.command(masks)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    Every failure is one line on standard error, unless --debug.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens[:1] == [ASKED]:
        build()(tokens, result_action="return_value")
        return 0
    debug, verbose = "--debug" in tokens, "--verbose" in tokens
    # waiting threads that spin starve every other process
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    tokens = _close_number_lists([token for token in tokens if token not in TAKEN])
    # fvcore scripts functions when it is imported; torch finds that old-fashioned.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
    try:
        from harl_bench.core.progress import set_up_logging

        set_up_logging(verbose=verbose)
        if tokens and not tokens[0].startswith("-"):
            lookup({**COMMANDS, "masks": None}, tokens[0], "command")
        _check_settings()
        called = " ".join(tokens[:2]) if tokens[:1] == ["masks"] else "".join(tokens[:1])
        with terminable():
            outcome = build(called)(
                tokens, exit_on_error=False, print_error=False, result_action="return_value"
            )
        return outcome if isinstance(outcome, int) else 0
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            raise
        return _explain(error)


def _check_settings() -> None:
    """Check that every section of harl-bench.yaml is a command's.

    What a section holds is checked when its command is called.

    Raises:
        UsageError: another section, or a file that is no mapping of sections.
    """
    if not os.path.exists(SETTINGS):
        return
    from harl_bench.core.config import read_yaml

    settings = read_yaml(SETTINGS)
    sections = {**COMMANDS, "masks": None}
    for known, inside, prefix in (
        (sections, settings, ""),
        (MASKS, settings.get("masks") or {}, "masks."),
    ):
        for name, values in inside.items():
            where = f"{SETTINGS}:{settings.lines[f'{prefix}{name}']}"
            if name not in known:
                raise UsageError(unknown(f"{prefix}{name}", known, "section"), where=where)
            if not isinstance(values, dict):
                raise UsageError(
                    f"section {name!r} holds keys and values", where=where, seen=values
                )


def _explain(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError):  # `harl-bench ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, CycloptsError):
        words = " ".join(str(error).split()).removesuffix(".")
        called = " ".join(("harl-bench", *(error.command_chain or ()), "--help"))
        error = UsageError(words, next=called)
    if isinstance(error, KeyboardInterrupt):
        print(f"interrupted; {KEPT}", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, ImportError) and "'pretrain' is not a package" in str(error):
        error = UsageError(
            "a file pretrain.py of yours hides ours",
            where=os.getcwd(),
            next="run from another folder",
        )
    assert isinstance(error, Exception), "the others are handled above"
    known = explained(error)
    if not getattr(error, "printed", False):  # by another process of the run
        print(known.line(), file=sys.stderr)
    return known.exit_code


def _close_number_lists(tokens: list[str]) -> list[str]:
    """Move what is not a number in front of `--seeds`: `--seeds 0 1 KEY=value` has two seeds."""
    closed: list[str] = []
    at = 0
    while at < len(tokens):
        option, at = tokens[at], at + 1
        if option not in NUMBER_LISTS:
            closed.append(option)
            continue
        end = at
        while end < len(tokens) and (_is_number(tokens[end]) or not tokens[end].startswith("-")):
            end += 1
        numbers = [token for token in tokens[at:end] if _is_number(token)]
        others = [token for token in tokens[at:end] if not _is_number(token)]
        closed += [*others, option, *numbers] if numbers else [option, *others]
        at = end
    return closed


def _is_number(text: str) -> bool:
    try:
        [float(part) for part in text.split(",") if part]
    except ValueError:
        return False
    return text.strip(",") != ""


def script() -> int:
    """What the console script calls: `main`, and then nothing is left that a signal could stop."""
    code = main()
    leave_signals_to_the_parent()
    return code


if __name__ == "__main__":
    sys.exit(script())
