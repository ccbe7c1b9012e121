"""The engine's choice and whose finished runs count, with and without Detectron2."""

import sys
import types

import pytest

from harl_bench.cli import main
from harl_bench.convert import proof
from harl_bench.core.errors import MachineError, UsageError
from harl_bench.core.results import read_result
from harl_bench.detection import engines
from harl_bench.detection.torchvision_engine.evaluate import evaluate
from harl_bench.detection.torchvision_engine.train import train
from harl_bench.doctor import machine
from tests.detection import tiny
from tests.detection.command import QUICK, voc

ENGINE = [f"harl_bench.detection.detectron2_{part}" for part in ("engine", "model")]
BROKEN = {
    "built for another torch": "raise ImportError('_C.so: undefined symbol: _ZN3c10\\nfoo')",
    "tag v0.6": "raise AttributeError(\"module 'PIL.Image' has no attribute 'LINEAR'\")",
    "bare checkout": "",
}


@pytest.fixture(autouse=True)
def forgotten():
    """Forget what a test imports under these names, and restore a real Detectron2."""

    def taken():
        names = [
            name for name in sys.modules if name in ENGINE or name.partition(".")[0] == "detectron2"
        ]
        return {name: sys.modules.pop(name) for name in names}

    real = taken()
    yield
    taken()
    sys.modules.update(real)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"))


def place(folder, monkeypatch, text):
    """A package detectron2 of this text, found before any other."""
    (folder / "detectron2").mkdir(parents=True)
    (folder / "detectron2/__init__.py").write_text(text)
    monkeypatch.syspath_prepend(folder)


def install(folder, monkeypatch, train=train, evaluate=evaluate):
    """A Detectron2 that can be imported, whose engine calls these two."""
    place(folder, monkeypatch, "")
    module = types.ModuleType("stand_in")
    module.train, module.evaluate = train, evaluate
    for name in ENGINE:
        monkeypatch.setitem(sys.modules, name, module)


def never(*_):
    raise AssertionError("this run was finished, or belongs to the other engine")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_detectron2_is_a_warning_for_auto_and_an_error_when_asked_for(
    tmp_path, monkeypatch, caplog, name
):
    place(tmp_path, monkeypatch, BROKEN[name])
    monkeypatch.setattr(engines.log, "propagate", True)
    assert engines.choose("auto") == "torchvision"
    (text,) = {record.getMessage() for record in caplog.records if record.levelname == "WARNING"}
    assert "Detectron2 is installed but broken, so the torchvision engine is used: " in text
    with pytest.raises(
        MachineError, match=r"Detectron2 cannot be imported; seen: .*Error: .*; next: pip"
    ) as caught:
        engines.choose("detectron2")
    assert caught.value.exit_code == 5
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize("name", BROKEN)
def test_doctor_and_convert_say_the_same(tmp_path, monkeypatch, name):
    place(tmp_path, monkeypatch, BROKEN[name])
    finding = machine._detectron2()
    assert (finding.level, finding.next) == ("fail", engines.INSTALL)
    assert proof.detectron2_installed() is False  # the proof does without it


@pytest.mark.parametrize("engine", ["detectron2", "both"])
def test_the_command_refuses_a_broken_detectron2(root, tmp_path, monkeypatch, capsys, engine):
    place(tmp_path / "site", monkeypatch, BROKEN["tag v0.6"])
    assert main([*voc(root, tmp_path, engine=engine), *QUICK]) == 5
    assert "has no attribute 'LINEAR'" in capsys.readouterr().err


def test_names(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    assert engines.choose("auto") == "detectron2"
    assert engines.choose("torchvision") == "torchvision"
    with pytest.raises(UsageError, match="unknown engine 'detectron'"):
        engines.choose("detectron")


def auto(root, out, *more):
    return [*voc(root, out, engine="auto"), *QUICK, "--pictures", "0", *more]


def without(monkeypatch):
    original = engines.importlib.util.find_spec
    monkeypatch.setattr(
        engines.importlib.util,
        "find_spec",
        lambda name: None if name == "detectron2" else original(name),
    )


def test_auto_does_not_train_again_when_detectron2_is_installed_later(
    root, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        without(patch)
        assert main(auto(root, tmp_path / "runs")) == 0
    (path,) = (tmp_path / "runs").rglob("result.json")
    install(tmp_path / "site", monkeypatch, never, never)
    assert main(auto(root, tmp_path / "runs")) == 0
    assert "finished before" in capsys.readouterr().out
    assert len(list((tmp_path / "runs").rglob("run.json"))) == 1
    assert main(auto(root, tmp_path / "runs", "--eval-only")) == 0  # by the engine that trained it
    path.unlink()  # stopped before it was scored: the engine that began goes on
    assert main(auto(root, tmp_path / "runs")) == 0
    assert read_result(path).engine == "torchvision"
    # by its name it is another run
    with pytest.raises(AssertionError, match="belongs to the other"):
        main([*voc(root, tmp_path / "runs", engine="detectron2"), *QUICK, "--debug"])


def test_auto_counts_detectron2s_run_when_detectron2_is_gone(root, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        install(tmp_path / "site", patch)
        assert main(auto(root, tmp_path / "runs")) == 0
    (path,) = (tmp_path / "runs").rglob("result.json")
    assert read_result(path).engine == "detectron2"
    without(monkeypatch)
    assert main(auto(root, tmp_path / "runs")) == 0
    assert "finished before" in capsys.readouterr().out
    assert len(list((tmp_path / "runs").rglob("run.json"))) == 1
