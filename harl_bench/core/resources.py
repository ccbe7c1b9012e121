"""Where the packaged YAML and CSV lie: harl_bench/_data in a wheel, beside it in a checkout."""

from pathlib import Path

from harl_bench.core.errors import MachineError


def data_dir(name: str) -> Path:
    """Folder of a packaged data set of files, `transfer_configs` or `reports`, as a real path.

    Raises:
        MachineError: the installation lacks the folder.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = [package / "_data" / name, package.parent / name]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise MachineError(
        f"packaged folder {name!r} is missing",
        where=" or ".join(map(str, candidates)),
        next="install harl-bench again",
    )
