"""Scripts that time and compare, each run as a module: python -m benchmarks.NAME."""
