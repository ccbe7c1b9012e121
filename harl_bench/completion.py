"""The command `harl-bench completion`."""

import re
from typing import Literal

from harl_bench.core.errors import UsageError


def completion(
    shell: Literal["bash", "zsh", "fish"] | None = None, /, *, install: bool = False
) -> None:
    """Print what makes a shell complete commands, options and names, or install it.

    Names are recipes, methods, data sets, protocols and suites. They are read when TAB is pressed.

    Try:

        harl-bench completion --install

        harl-bench completion bash > ~/.local/share/bash-completion/completions/harl-bench

    Args:
        shell: Which one (default: the one that this command was given in).
        install: Write it where the shell looks for it, and add its place to ~/.bashrc or ~/.zshrc.
    """
    from cyclopts.completion import ShellDetectionError, detect_shell

    from harl_bench.cli import build
    from harl_bench.core.files import write_bytes

    try:
        named = shell or detect_shell()
    except ShellDetectionError:
        raise UsageError(
            "cannot tell which shell this is", next="harl-bench completion bash"
        ) from None
    app = build()
    if not install:
        print(_with_files(app.generate_completion(shell=named)))
        return
    path = app.install_completion(shell=named)
    write_bytes(path, _with_files(path.read_text()).encode())
    print(f"wrote {path}; open a new terminal, and TAB completes harl-bench")
    if named == "zsh":
        print("if it does not: autoload -Uz compinit && compinit, at the end of ~/.zshrc")


def _with_files(script: str) -> str:
    """Return the script with files offered where it has no name, as for a checkpoint.

    In bash, readline offers them: it puts a slash behind a folder.
    """
    for words, with_files in (
        ("complete -F", "complete -o bashdefault -o default -F"),  # bash
        ('COMPREPLY=( $(compgen -f -- "${cur}") )', "COMPREPLY=()"),
        ("-a _cyc_vals\n", "-a _cyc_vals || _files\n"),  # zsh
    ):
        script = script.replace(words, with_files)
    return re.sub(r"^( *'1:(?:[^:]|\\:)*)' \\$", r"\1:_files' \\", script, flags=re.MULTILINE)
