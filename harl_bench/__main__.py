"""python -m harl_bench is harl-bench."""

import sys

from harl_bench.cli import script

if __name__ == "__main__":
    sys.exit(script())
