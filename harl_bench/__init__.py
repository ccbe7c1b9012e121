"""harl-bench: from images to the paper's tables."""

__version__ = "0.1.0"
