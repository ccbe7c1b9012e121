"""The command line itself: help without torch, failures of one line, lists that close."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harl_bench import cli

EVERY = [[name] for name in cli.COMMANDS] + [["masks"]] + [["masks", name] for name in cli.MASKS]


@pytest.mark.parametrize("command", [[], *EVERY], ids=lambda c: " ".join(c) or "top")
def test_help_never_loads_torch(command: list[str]) -> None:
    code = (
        "import sys; from harl_bench.cli import main; "
        f"code = main({[*command, '--help']!r}); "
        "assert code == 0, code; loaded = {'torch', 'torchvision', 'pandas', 'matplotlib', "
        "'cv2'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_every_command_shows_two_examples() -> None:
    for command in EVERY:
        if command != ["masks"]:
            done = subprocess.run(
                [sys.executable, "-m", "harl_bench", *command, "--help"],
                capture_output=True,
                text=True,
                check=True,
            )
            times = done.stdout.count("harl-bench " + " ".join(command))
            assert times >= 3, f"{command}: usage and two examples"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vocc"], "did you mean 'voc'"),
        (["voc"], "CHECKPOINT requires an argument; next: harl-bench voc --help"),
        (["voc", "x.pth", "--sedes", "0"], "--sedes"),
        (["masks", "make", "x", "--oot", "y"], "next: harl-bench masks make --help"),
        (["convert", "x.pth", "--to", "caffe"], "caffe"),
        (["voc", "x.pth", "--seeds", "zero"], "not a list of whole numbers: 'zero'"),
        (["voc", "x.pth", "--seeds", "0,one"], "not a list of whole numbers: '0 one'"),
        (["voc", "x.pth", "--seeds", "0,-1"], "Must be >= 0"),
        (["voc", "x.pth", "--seeds", "0", "4294967296"], "Must be < 4294967296"),
        (["voc", "x.pth", "--seeds", "0.5"], "not a list of whole numbers: '0.5'"),
        (["voc", "x.pth", "--seeds", ","], "not a list of whole numbers: 'nothing'"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error[usage]: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["voc", "coco", "cityscapes", "segment"])
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--device cpu --gpus 1", 2, "seen: --device cpu --gpus 1; next: leave one of them out"),
        ("--device cuda --gpus 0", 2, "seen: --device cuda --gpus 0; next: leave one of them out"),
        ("--device cuda", 5, "no CUDA device"),
    ],
)
def test_device_and_gpus_agree(
    command: str,
    options: str,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main([command, "random", *options.split()]) == code
    output = capsys.readouterr()
    assert message in output.err
    assert output.out.startswith(f"{command}: random by ")  # before torch is loaded


def test_device_cpu_is_no_gpu() -> None:
    from harl_bench.nn import runtime

    assert (runtime.gpus("cpu", None), runtime.gpus("cpu", 0)) == (0, 0)
    assert (runtime.gpus("auto", None), runtime.gpus("auto", 2)) == (None, 2)


def test_number_lists_end_where_numbers_end() -> None:
    close = cli._close_number_lists
    for words, closed in (
        ("voc x --seeds 0 1 A.B=2", "voc x A.B=2 --seeds 0 1"),
        ("voc --lr 0.02 1e-1 x.pth", "voc x.pth --lr 0.02 1e-1"),
        ("voc x --seeds 0 --out r", "voc x --seeds 0 --out r"),
        ("voc x --seeds -1", "voc x --seeds -1"),
        ("voc --seeds 0,1,2 x", "voc x --seeds 0,1,2"),
    ):
        assert close(words.split()) == closed.split()


@pytest.mark.parametrize(
    "words", [["0", "1", "2"], ["0,1,2"], ["0,", "1,2"], ["0,", "1,", "2"], ["0,1", "2"]]
)
@pytest.mark.parametrize("command", ["voc", "coco", "classify"])
def test_seeds_may_have_commas(command: str, words: list[str]) -> None:
    """Every command with --seeds reads the lists that people write."""
    needed = (
        ["--data", "d", "--dataset", "dtd", "--protocol", "linear"] if command == "classify" else []
    )
    tokens = cli._close_number_lists([command, "x.pth", *needed, "--seeds", *words])
    _, bound, _ = cli.build(command).parse_args(tokens, exit_on_error=False, print_error=False)
    assert bound.arguments["seeds"] == [0, 1, 2]


def test_lists_of_numbers_elsewhere_may_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARL_BENCH_VOC_SEEDS", "3,4")
    _, bound, _ = cli.build("voc").parse_args(
        ["voc", "x", "--lr", "0.02,1e-1"], exit_on_error=False, print_error=False
    )
    assert (bound.arguments["seeds"], bound.arguments["lr"]) == ([3, 4], [0.02, 0.1])


def test_an_unforeseen_error_is_one_line_too_and_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(called: str) -> None:
        raise RuntimeError("a\nsurprise")

    monkeypatch.setattr(cli, "build", broken)
    assert cli.main(["ls"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error[internal]: RuntimeError: a surprise; next: give the command again with --debug"
    )
    assert error.count("\n") == 1
    with pytest.raises(RuntimeError):
        cli.main(["ls", "--debug"])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "same command again"),
        (OSError(28, "No space left on device", "runs/x"), 5, "the disk is full; in runs/x"),
        (PermissionError(13, "Permission denied", "runs/x"), 5, "no permission"),
        (FileNotFoundError(2, "No such file", "x.jpg"), 3, "file not found; in x.jpg"),
        (SystemExit(3), 3, ""),
    ],
)
def test_every_kind_of_failure_has_its_line_and_code(
    error: BaseException,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(called: str) -> None:
        raise error

    monkeypatch.setattr(cli, "build", failing)
    assert cli.main(["ls"]) == code
    assert message in capsys.readouterr().err


def test_settings_from_file_and_environment_are_below_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """harl-bench.yaml < HARL_BENCH_* < flags, seen through `ls`, which names its folder."""
    for name in ("file", "environment", "flag"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harl-bench.yaml").write_text("ls:\n  runs: file\n")
    assert cli.main(["ls"]) == 0
    assert "below file" in capsys.readouterr().out
    monkeypatch.setenv("HARL_BENCH_LS_RUNS", "environment")
    assert cli.main(["ls"]) == 0
    assert "below environment" in capsys.readouterr().out
    assert cli.main(["ls", "flag"]) == 0
    assert "below flag" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vco:\n  seeds: [0]\n", "unknown section 'vco'; did you mean 'voc'? known: "),
        ("ls:\n  runs: runs\nseeds: [0]\n", "; in harl-bench.yaml:3"),
        ("masks:\n  maek: {}\n", "unknown section 'masks.maek'; did you mean 'make'"),
        ("ls: runs\n", "section 'ls' holds keys and values; in harl-bench.yaml:1; seen: runs"),
        ("ls:\n  runs: a\n  runs: b\n", "duplicate key 'ls.runs'; in harl-bench.yaml:3"),
        ("ls:\n  rnus: a\n", "rnus"),
    ],
)
def test_a_settings_file_is_read_strictly(
    text: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("harl-bench.yaml").write_text(text)
    assert cli.main(["ls"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("voc", "masks", "eval-only", "save-maps"))


def test_completion_for_bash_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    subprocess.run(["bash", "-n", str(tmp_path / "script")], check=True)


@pytest.mark.parametrize(
    "command",
    [
        "pretrain --method harl --data IMAGES",
        "masks make IMAGES --out MASKS --method deep",
        "masks fit IMAGES --out FILE.npz --method deep",
        "convert NOWHERE.pth --inspect",
    ],
)
def test_a_command_says_what_it_does_before_torch_loads(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loading takes seconds, also where a mistake is found behind it."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) in (2, 4)
    assert "; loading torch\n" in capsys.readouterr().out


def test_the_demo_prints_commands_that_a_shell_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my demo"
    assert cli.main(["demo", "--out", str(out), "--dry-run"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert shlex.split(first)[:3] == ["harl-bench", "toy-data", str(out / "data")]
