"""The promises, attacked.

`make test` runs a sample, `make test-all` (HARL_BENCH_FAULTS=full) every round.
"""

import os

FULL = os.environ.get("HARL_BENCH_FAULTS") == "full"
