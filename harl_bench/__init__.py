"""harl-bench: from pictures to the paper's tables."""

__version__ = "0.1.0"
