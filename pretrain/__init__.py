"""Training a representation: HARL and its baselines. What measures one lives in harl_bench."""
