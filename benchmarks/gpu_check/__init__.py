"""Everything of harl-bench that needs a GPU, in one run: `python -m benchmarks.gpu_check`."""
