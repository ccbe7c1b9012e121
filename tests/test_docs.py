"""The documentation says what the code says."""

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.specifiers import SpecifierSet

from benchmarks.gpu_check import __main__ as gpu_check
from harl_bench import cli
from harl_bench.core.config import read_yaml
from harl_bench.detection import recipe
from harl_bench.suite import cluster
from harl_bench.suite import config as suites

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current() -> None:
    pages = generator().pages()
    stale = [
        str(name)
        for name, text in pages.items()
        if (DOCS / name).read_text(encoding="utf-8") != text
    ]
    assert not stale, f"run: python docs/generate.py ({', '.join(stale)})"
    assert {path.name for path in (DOCS / "commands").glob("*.md")} == {
        n.name for n in pages if n.parent.name
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_package_index_gets_no_relative_link() -> None:
    """It shows README.md alone. tests/test_wheel.py looks into the wheel."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = re.compile(r"\]\((?!https?://)")
    assert relative.search(text)
    hook = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for rule in hook["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert not relative.search(text)


def test_the_versions_of_python_are_the_same_everywhere() -> None:
    project = PYPROJECT["project"]
    prefix = "Programming Language :: Python :: 3."
    minors = [
        int(line.removeprefix(prefix)) for line in project["classifiers"] if line.startswith(prefix)
    ]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert project["requires-python"] == f">=3.{minors[0]},<3.{minors[-1] + 1}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"not in ({', '.join(f'(3, {minor})' for minor in minors)})" in makefile
    for text in (makefile, (ROOT / "README.md").read_text(encoding="utf-8")):
        assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in text


OWN_DATA = re.findall(
    r"^harl-bench .*$", (DOCS / "own-data.md").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize("line", OWN_DATA)
def test_commands_for_own_data_are_read(line: str) -> None:
    """Options are known, and every override is a key of the recipe."""
    words = shlex.split(line)[1:]
    _, bound, _ = cli.build(words[0]).parse_args(
        cli._close_number_lists(words), exit_on_error=False, print_error=False
    )
    settings = recipe.load(bound.arguments["recipe"], bound.arguments["overrides"])
    assert all(
        name.startswith(f"{words[0]}_")
        for name in (*settings.DATASETS.TRAIN, *settings.DATASETS.TEST)
    )
    assert len(OWN_DATA) == 5


def blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, language, text) of each fenced block, and of each indented command."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start, language, inside = 0, "", list[str]()
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            if start:
                yield start, language, "\n".join(inside)
                start, inside = 0, []
            else:
                start, language = number, line[3:].strip()
        elif start:
            inside.append(line)
        elif re.match(r" {4}(harl-bench|python) ", line):
            yield number, "", line.strip()


def read_command(text: str) -> None:
    """Hand a command to the parser of the real command line; nothing is run."""
    words = shlex.split(text, comments=True)
    words = words[: words.index(">")] if ">" in words else words
    assert not (joins := {"|", "&&", ";"} & set(words)), joins
    words = cli._close_number_lists([word for word in words[1:] if word not in cli.TAKEN])
    if words[0] == "run" and (data := {w[5:].partition("=")[0] for w in words if w[:5] == "data."}):
        assert data == set(suites.load(words[1]).data), "names each folder of the suite"
    app = cli.build(" ".join(words[:2]) if words[0] == "masks" else words[0])
    with contextlib.redirect_stdout(io.StringIO()):
        app.parse_args(words, exit_on_error=False, print_error=False)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


CONTAINER_OPTIONS = {"--rm", "--init", "--gpus", "--shm-size", "--user", "-v", "--nv", "--bind"}


def check_container(words: list[str]) -> None:
    """Require known options, arguments of the Dockerfile, our commands and a Python we support."""
    match words:
        case ["docker" | "apptainer", "run", *rest]:
            image = next(i for i, word in enumerate(rest) if word.startswith("harl-bench"))
            options = {word for word in rest[:image] if word.startswith("-")}
            assert options <= CONTAINER_OPTIONS, options
            read_command(shlex.join(["harl-bench", *rest[image + 1 :]]))
        case ["docker", "build", "-t", "harl-bench", *rest, "."]:
            dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
            for flag, value in zip(rest[::2], rest[1::2], strict=True):
                assert flag == "--build-arg", flag
                assert f"\nARG {value.partition('=')[0]}\n" in dockerfile, value
        case ["docker", "save", "-o", file, "harl-bench"]:
            assert file == "harl-bench.tar"
        case ["apptainer", "build", "harl-bench.sif", source]:
            assert source == "docker-archive:harl-bench.tar"
        case ["conda", "create", "-n", "harl-bench", "-c", "conda-forge", package]:
            name, _, version = package.partition("=")
            assert name == "python"
            assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(version)
        case ["conda", "activate", "harl-bench"]:
            pass
        case _:
            raise AssertionError(f"not one of the ways of this test: {shlex.join(words)}")


def check_commands(text: str) -> None:
    """Require commands that our parser takes, targets of the Makefile, scripts that exist, or pip,
    docker and conda.
    """
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        match words:
            case ["harl-bench", *_]:
                read_command(line)
            case ["make", target]:
                assert target in make_targets(), target
            case ["python", script, *_] if script.endswith(".py"):
                assert (ROOT / script).is_file(), script
            case ["python", "-m", "benchmarks.gpu_check", *options]:
                gpu_check.parsed(options)
            case ["python", "-m", module, *_] if module.startswith("benchmarks."):
                assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module
            case ["python", "-m", "pytest", *_]:
                pass
            case ["pip", "install", *_] | ["git", "clone", *_]:
                pass
            case ["docker" | "apptainer" | "conda", *_]:
                check_container(words)
            case _:
                raise AssertionError(f"neither a command nor labelled text: {line}")


def check_yaml(text: str, folder: Path) -> None:
    """Read a file by the reader of its kind, which its keys tell."""
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    keys = set(read_yaml(path))
    if "tasks" in keys:
        suites.load(str(path))
    elif "method" in keys:
        from pretrain.recipe import load

        load(str(path), None, [])
    elif "partition" in keys:
        cluster.load(path)
    elif "network" in keys:
        from harl_bench.segmentation.recipe import load as load_segmentation

        load_segmentation(path)
    elif keys & set(cli.COMMANDS):
        with contextlib.chdir(folder):
            path.rename(cli.SETTINGS)
            cli._check_settings()
    else:
        from harl_bench.detection.recipe import load as load_recipe

        load_recipe(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_is_what_it_says(page: Path, tmp_path: Path) -> None:
    for line, language, text in blocks(page):
        place = f"{page.name}:{line}"
        try:
            match language:
                case "":
                    check_commands(text)
                case "yaml" if page.name == "CONTRIBUTING.md":
                    pass  # tests/test_contributing.py uses it
                case "yaml":
                    check_yaml(text, tmp_path)
                case "python":
                    ast.parse(text)
                case "console":
                    assert page.parent.name == "commands", "usage lines of the generator alone"
                case _:
                    assert language == "text", language
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{place}: {error}") from error


def test_a_block_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    check_commands("harl-bench ls runs   # comment\nmake demo")
    for text in (
        "harl-bench voc x.pth --sedes 0",
        "harl-bench nothing",
        "harl-bench run moco-transfer data.voc=/data data.coco=/data",
        "make coffee",
        "python absent.py",
        "python -m benchmarks.absent",
        "python -m benchmarks.gpu_check --onyl step",
        "rm -r x",
        "docker run --shmsize 8g harl-bench doctor",
        "docker run --rm harl-bench docter",
        "docker build -t harl-bench --build-arg TORCH=cpu .",
        "apptainer run --nv harl-bench.sif voc x.pth --sedes 0",
        "conda create -n harl-bench -c conda-forge python=3.9",
    ):
        with pytest.raises((Exception, SystemExit), match=r"."):
            check_commands(text)
    check_yaml("partition: gpu\ntime: 12:00:00\n", tmp_path)
    for text in (
        "partition: gpu\ntime: noon\n",
        "method: byool\n",
        "tasks: []\n",
        "MODEL: {MASKON: true}\n",
    ):
        with pytest.raises(Exception, match=r"."):
            check_yaml(text, tmp_path)
