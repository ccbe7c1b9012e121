"""Completion as a shell does it: the script is sourced and asked what may come next."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts.completion import ShellDetectionError

from harl_bench import cli
from harl_bench.classify.datasets import DATASETS
from harl_bench.classify.run import PROTOCOLS
from harl_bench.detection import recipe as detection
from harl_bench.masks.makers import MAKERS
from harl_bench.segmentation import recipe as segmentation
from harl_bench.suite import config as suites
from pretrain import recipe as pretraining
from pretrain.methods import METHODS

ASK = """source completion.bash
COMP_WORDS=(harl-bench "$@") COMP_CWORD=$#
_harl_bench
printf '%s\\n' "${COMPREPLY[@]}"
"""
OFFERED = {
    "vo": ["voc"],
    "voc CKPT --recipe ": ["voc-c4-24k", "voc-c4-24k-lars", "voc-c4-toy"],
    "voc CKPT --seeds 0 1 --recipe voc-c4-2": ["voc-c4-24k", "voc-c4-24k-lars"],
    "voc CKPT --engine t": ["torchvision"],
    "cityscapes CKPT --recipe ": ["cityscapes-fpn-24k", "cityscapes-fpn-toy"],
    "segment CKPT --recipe ": segmentation.names(),
    "pretrain --data IMAGES --method ": METHODS,
    "pretrain --data IMAGES --recipe ": pretraining.names(),
    "classify CKPT --data D --dataset ": DATASETS,
    "classify CKPT --data D --dataset = d": ["dtd"],  # bash's words of --dataset=d
    "classify CKPT --protocol ": PROTOCOLS,
    "run ": suites.names(),
    "masks make IMAGES --method ": MAKERS,
    "masks fit IMAGES --method ": ["drfi", "deep"],
}


@pytest.fixture(scope="module")
def script() -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.main(["completion", "bash"]) == 0
    return printed.getvalue()


@pytest.fixture
def folder(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the script and a harl-bench that is on the path."""
    (tmp_path / "completion.bash").write_text(script)
    program = tmp_path / "harl-bench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harl_bench.cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[1]), prepend=os.pathsep)
    return tmp_path


def ask(folder: Path, line: str) -> list[str]:
    command = ["bash", "--norc", "-c", ASK, "bash", *line.split(" ")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("line", OFFERED)
def test_bash_offers_the_names(line: str, folder: Path) -> None:
    assert sorted(ask(folder, line)) == sorted(OFFERED[line])


def test_a_broken_settings_file_does_not_stop_completion(folder: Path) -> None:
    (folder / "harl-bench.yaml").write_text("vco: {data: x}\n")
    assert "moco-transfer" in ask(folder, "run mo")


def test_every_detection_recipe_is_offered_by_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    offered = []
    for command in ("voc", "coco", "cityscapes"):
        assert cli.main(["__complete", command, "CKPT", "--recipe", ""]) == 0
        offered += capsys.readouterr().out.split()[1:]  # the first line opens the list
    assert sorted(offered) == detection.names()


def test_names_come_without_torch() -> None:
    lines = [[*line.split(" ")] for line in OFFERED]
    code = (
        "import sys; from harl_bench.cli import main\n"
        f"for words in {lines}: assert main(['__complete', *words]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_where_there_is_no_name_bash_offers_files(folder: Path) -> None:
    for line in ("voc ", "run ./own", "voc CKPT --data "):
        assert ask(folder, line) == []  # then readline's default follows
    done = subprocess.run(
        ["bash", "-c", "source completion.bash; complete -p harl-bench"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "complete -o bashdefault -o default -F _harl_bench harl-bench\n"


def test_zsh_offers_files_for_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    checkpoint = [line.strip() for line in script.splitlines() if "1:a checkpoint of any" in line]
    assert len(checkpoint) == 4  # voc, coco, cityscapes, segment
    assert all(line.endswith(""" or \\"random\\".:_files' \\""") for line in checkpoint)
    assert "compadd -d _cyc_disp -a _cyc_vals || _files\n" in script


@pytest.mark.parametrize(
    ("shell", "written", "started"),
    [
        ("bash", ".local/share/bash-completion/completions/harl-bench", ".bashrc"),
        ("zsh", ".zsh/completions/_cyclopts_harl-bench", ".zshrc"),
        ("fish", ".config/fish/completions/harl-bench.fish", None),
    ],
)
def test_install_writes_the_script_and_one_line(
    shell: str,
    written: str,
    started: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZSH", raising=False)
    monkeypatch.delenv("ZSH_CUSTOM", raising=False)
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for _ in range(2):  # the second time changes nothing
        assert cli.main(["completion", shell, "--install"]) == 0
        assert f"wrote {tmp_path / written}" in capsys.readouterr().out
    assert (tmp_path / written).read_text() == script.removesuffix("\n")
    if started:
        lines = (tmp_path / started).read_text().splitlines()
        assert len([line for line in lines if str((tmp_path / written).parent) in line]) == 1
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(tmp_path / written)], check=True)


def test_an_unknown_shell_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown() -> None:
        raise ShellDetectionError

    monkeypatch.setattr("cyclopts.completion.detect_shell", unknown)
    assert cli.main(["completion"]) == 2
    error = capsys.readouterr().err
    assert (
        error == "error[usage]: cannot tell which shell this is; next: harl-bench completion bash\n"
    )
