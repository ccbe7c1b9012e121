"""The Dockerfile agrees with the tree, with pyproject.toml and with constraints.txt."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = dict(
    line.lower().replace("_", "-").split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
)
# https://docs.docker.com/reference/dockerfile
INSTRUCTIONS = re.compile(
    "ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|ONBUILD|RUN|SHELL|STOPSIGNAL|"
    "USER|VOLUME|WORKDIR"
)
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, its arguments) in order.

    Raises:
        ValueError: an instruction that docker does not know.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pairs = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if not INSTRUCTIONS.fullmatch(name):
            raise ValueError(line)
        pairs.append((name, " ".join(rest.split())))
    return pairs


def test_the_parser_knows_a_wrong_line() -> None:
    assert instructions("# x\nRUN a \\\n  && b\nCMD []") == [("RUN", "a && b"), ("CMD", "[]")]
    for text in ("COPPY . .", "RUN a\n  && b"):
        with pytest.raises(ValueError, match=text.splitlines()[-1].strip()):
            instructions(text)


STEPS = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
SENT = [
    line.removeprefix("!")
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    if line.startswith("!")
]


def arguments(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def test_python_is_pinned_and_one_that_the_package_takes() -> None:
    (base,) = arguments("FROM")
    match = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-[a-z]+", base)
    assert match
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(match[1])


def test_what_is_copied_exists_and_is_all_that_the_wheel_needs() -> None:
    for copied in arguments("COPY"):
        *sources, _ = copied.split()
        assert all((ROOT / source).exists() for source in sources), copied
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored, "nothing is sent but what is named"
    assert all((ROOT / name).exists() for name in SENT)
    hatch = PROJECT["tool"]["hatch"]
    fragments = hatch["metadata"]["hooks"]["fancy-pypi-readme"]["fragments"]
    needed = {
        *hatch["build"]["targets"]["wheel"]["only-include"],
        *PROJECT["project"]["license-files"],
        *(fragment["path"] for fragment in fragments),
        "pyproject.toml",
        "constraints.txt",
    }
    assert set(SENT) == needed


def test_every_version_comes_from_the_constraints() -> None:
    project = PROJECT["project"]
    installs = [step for step in arguments("RUN") if "pip" in step]
    assert installs
    for step in installs:
        words = shlex.split(step)
        assert words[:4] == ["pip", "install", "-c", "constraints.txt"], step
        for package in words[4:]:
            name, _, extra = package.rstrip("]").partition("[")
            assert name in (".", "torch", "torchvision")
            assert not extra or extra in project["optional-dependencies"]
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(PINS[requirement.name.lower()]), requirement


def test_no_rights_of_root_are_left() -> None:
    assert int(arguments("USER")[-1]) > 0
    assert arguments("ENTRYPOINT") == ['["harl-bench"]']
    names = [name for name, _ in STEPS]
    after = names[names.index("USER") :]
    assert not {"RUN", "COPY", "ADD"} & set(after), "root's work comes first"


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        ["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_the_image_is_built_and_runs() -> None:
    """With the CPU build of torch, which is a fifth of the other one's size."""
    if not docker_answers():
        pytest.skip("no docker daemon answers")
    tag, wheels = "harl-bench-test", f"PIP_EXTRA_INDEX_URL={CPU_WHEELS}"
    subprocess.run(["docker", "build", "-t", tag, "--build-arg", wheels, str(ROOT)], check=True)
    run = ["docker", "run", "--rm", "--user", "1234:1234", tag]
    done = subprocess.run([*run, "doctor"], capture_output=True, text=True, check=False)
    assert "packages" in done.stdout, done.stderr
    assert "as required" in done.stdout
