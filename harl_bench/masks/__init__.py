"""Heuristic foreground masks: makers, files, quality."""
