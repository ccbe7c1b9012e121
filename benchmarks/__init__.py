"""Scripts that time and compare, each run by itself; gpu_check is run as a module."""
