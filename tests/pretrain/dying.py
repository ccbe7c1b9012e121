"""harl-bench in a process that kills itself in the sixth step of a pretraining."""

import os
import signal
import sys

from harl_bench.cli import main
from pretrain import loop

update, steps = loop.set_learning_rate, []


def dying(*arguments):
    steps.append(1)
    if len(steps) > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(*arguments)


if __name__ == "__main__":
    loop.set_learning_rate = dying
    main(sys.argv[1:])
