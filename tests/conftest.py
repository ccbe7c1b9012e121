"""Tests hear Ctrl-C as a terminal's programs do, even where the runner is a shell's job in the
background.
"""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
