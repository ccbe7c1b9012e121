"""Nothing foreign is executed, nothing is fetched, no shell is asked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.commands import CASES

# These pickle in memory, never to a file: samples, and the exception of a child process.
OWN = {"sample.py", "launching.py"}
ROOT = Path(__file__).parents[2]
SOURCES = [path for room in ("harl_bench", "pretrain") for path in (ROOT / room).rglob("*.py")]

FORBIDDEN = {
    r"shell\s*=\s*True|os\.system\(|os\.popen\(|subprocess\.getoutput": "a shell",
    r"\b(eval|exec|compile)\((?!\s*\))": "code from text",
    r"pickle\.(load|loads|Unpickler)\((?!.*restricted)": "unpickling",
    r"yaml\.(load|unsafe_load|full_load)\(": "YAML that makes objects",
    r"allow_pickle\s*=\s*True|weights_only\s*=\s*False": "unpickling",
    r"\b(urllib\.request|requests|httpx|huggingface_hub)\b|torch\.hub\.": "the network",
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_sources_are_free_of(pattern: str) -> None:
    matches = [
        f"{path.name}:{number}: {line.strip()}"
        for path in SOURCES
        if not (path.name in OWN and FORBIDDEN[pattern] == "unpickling")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line.split("#")[0])
        and not re.search(r"re\.compile|torch\.compile|\.eval\(", line)
    ]
    assert not matches, FORBIDDEN[pattern]


GUARD = """
import socket
def refuse(*a, **k):
    raise AssertionError("a socket was opened")
def local(self, address, connect=socket.socket.connect):
    # data workers hand tensors over through the file system
    return connect(self, address) if self.family == socket.AF_UNIX else refuse()
socket.socket.connect = socket.socket.connect_ex = local
socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masks", "pretrain", "convert", "coco", "classify"])
def test_no_command_opens_a_connection(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/sitecustomize.py").write_text(GUARD)
    path = os.pathsep.join([str(tmp_path / "guard"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    test = [sys.executable, "-c", "import socket; socket.create_connection(('localhost', 1))"]
    guarded = subprocess.run(test, capture_output=True, text=True, env=environment, check=False)
    assert "a socket was opened" in guarded.stderr
    done = subprocess.run(
        [sys.executable, "-m", "harl_bench.cli", *CASES[name].command(root, tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["$(touch pwned)", "; touch pwned", "`touch pwned`", "a' && touch 'pwned"]
)
def test_names_never_reach_a_shell(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite's steps are argument lists."""
    from harl_bench.cli import main

    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"data: {{classify: {tmp_path / 'no'}}}\ncheckpoints: [{name!r}]\n"
        "tasks: [{task: classify, protocol: linear-toy, data: classify}]\nseeds: [0]\n"
    )
    assert main(["run", str(suite), "--out", str(tmp_path / "runs")]) != 0
    assert not list(tmp_path.rglob("pwned"))
