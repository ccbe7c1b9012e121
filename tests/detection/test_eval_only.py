"""--eval-only: detectors that a run trained, given ones, and those of the model zoo."""

import pickle
import shlex

import numpy as np
import torch

from harl_bench.cli import main
from tests.detection.command import QUICK, result_of, voc


def test_eval_only_scores_the_trained_detector_again(finished, voc_root, capsys):
    _, result = result_of(finished)
    assert main([*voc(voc_root, finished), *QUICK, "--eval-only"]) == 0
    assert f"AP {result.metrics['AP']:.2f}" in capsys.readouterr().out


def test_eval_only_scores_a_given_detector(finished, voc_root, tmp_path, capsys):
    folder, result = result_of(finished)
    weights = folder / "checkpoints/model_final.pth"
    command = ["voc", str(weights), *voc(voc_root, tmp_path)[2:], *QUICK, "--eval-only"]
    assert main(command) == 0
    _, again = result_of(tmp_path)
    assert again.metrics == result.metrics
    assert again.checkpoint.format == "detector"
    assert any("nothing was trained" in departure for departure in again.departures)
    assert any("trainval has" in departure for departure in result.departures)
    assert not any("trainval has" in departure for departure in again.departures)
    text = capsys.readouterr().out
    assert "seed 0: scoring, in " in text
    assert ": training, in " not in text
    for more in (["--seeds", "0", "1"], ["--lr", "0.1"]):  # the same score twice is no n of 2
        assert main([*command, *more]) == 2
        assert f"seen: {' '.join(more)}" in " ".join(capsys.readouterr().err.split())


CONVENTION = ["MODEL.PIXEL_MEAN=[0.0,0.0,0.0]", "MODEL.PIXEL_STD=[255.0,255.0,255.0]"]


OTHER = [*CONVENTION, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION=6", "INPUT.FORMAT=BGR"]


def test_eval_only_refuses_a_recipe_of_another_network(finished, voc_root, tmp_path, capsys):
    """No tensor tells the images, the anchors and the pooling that it was trained with."""
    folder, _ = result_of(finished)
    weights = folder / "checkpoints/model_final.pth"
    command = ["voc", str(weights), *voc(voc_root, tmp_path)[2:], *QUICK, "--eval-only"]
    capsys.readouterr()
    assert main([*command, *OTHER]) == 4
    error = " ".join(capsys.readouterr().err.split())
    keys = "INPUT.FORMAT, MODEL.PIXEL_MEAN, MODEL.PIXEL_STD, MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"
    assert f"the detector was trained with another {keys}; " in error
    assert "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 4, the recipe has 6" in error
    advised = shlex.split(error.partition("add the overrides ")[2])
    assert main([*command, *OTHER, *advised]) == 0
    # Detectron2's trainer nests what it is given.
    state = torch.load(weights, weights_only=True)
    nested = {"model": state["model"], "trainer": {"harl_bench": state["harl_bench"]}}
    torch.save(nested, tmp_path / "theirs.pth")
    command[1] = str(tmp_path / "theirs.pth")
    assert main([*command, *OTHER]) == 4


def test_eval_only_scores_a_detector_of_the_model_zoo(finished, voc_root, tmp_path, capsys):
    """A .pkl of arrays that also holds pixel_mean, pixel_std and the anchors' cells."""
    folder, result = result_of(finished)
    state = torch.load(folder / "checkpoints/model_final.pth", weights_only=True)["model"]
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((15, 4), np.float32)
    for name, mean in (("zoo", (123.675, 116.28, 103.53)), ("caffe", (103.53, 116.28, 123.675))):
        arrays["pixel_mean"] = np.array(mean, np.float32).reshape(3, 1, 1)
        payload = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(payload))
    command = [
        "voc",
        str(tmp_path / "zoo.pkl"),
        *voc(voc_root, tmp_path / "runs")[2:],
        *QUICK,
        "--eval-only",
    ]
    assert main(command) == 0
    assert result_of(tmp_path / "runs")[1].metrics == result.metrics
    command[1] = str(tmp_path / "caffe.pkl")
    assert main(command) == 4
    assert "the detector was trained with another MODEL.PIXEL_MEAN" in capsys.readouterr().err
