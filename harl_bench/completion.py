"""The command `harl-bench completion`."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print what makes a shell complete commands and options. Nothing is installed or changed.

    Try:

        harl-bench completion bash > ~/.local/share/bash-completion/completions/harl-bench

        harl-bench completion zsh > ~/.zfunc/_harl-bench

    Args:
        shell: Which one.
    """
    from harl_bench.cli import build

    print(build().generate_completion(prog_name="harl-bench", shell=shell))
