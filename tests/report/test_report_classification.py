"""The classification tables: twelve sets in their own metrics, VOC07 SVM, nearest neighbors."""

from collections.abc import Sequence

import pytest

from harl_bench.core.results import Result
from harl_bench.report.finding import finding
from harl_bench.report.grid import MISSING
from harl_bench.report.tables import OWN, TWELVE
from tests.report.report_store import result
from tests.report.test_report_tables import row, tables


def test_the_metrics_are_those_of_the_data_sets() -> None:
    from harl_bench.classify.datasets import PUBLISHED

    named = {name: PUBLISHED[name].metric for name in TWELVE}
    assert named == {name: OWN.get(name, "top1") for name in TWELVE}


def twelve(
    method: str, score: float, *, seeds: Sequence[int] = (0,), without: str = "", toy: bool = False
) -> list[Result]:
    """A run a set, with one point more on each next set; top-1 lies 50 below another metric."""
    return [
        result(
            "classify", method, seed, dataset=name, protocol="linear", toy=toy, engine="torch"
        ).model_copy(
            update={"metrics": {"top1": value - 50 * (name in OWN), OWN.get(name, "top1"): value}}
        )
        for place, name in enumerate(TWELVE)
        for seed in seeds
        for value in (score + place + seed,)
        if name != without
    ]


def test_twelve_sets_each_in_its_own_metric_beside_byols_table() -> None:
    table = tables(*twelve("byol", 60.0), against=True)["twelve-linear"]
    assert [(c.group, c.heading) for c in table.columns] == [
        ("top-1", "Food101"),
        ("top-1", "CIFAR-10"),
        ("top-1", "CIFAR-100"),
        ("top-1", "Birdsnap"),
        ("top-1", "SUN397"),
        ("top-1", "Cars"),
        ("mean per class", "Aircraft"),
        ("11-point mAP", "VOC2007"),
        ("top-1", "DTD"),
        ("mean per class", "Pets"),
        ("mean per class", "Caltech-101"),
        ("mean per class", "Flowers"),
        ("", "mean"),
    ]
    ours = [cell.value for cell in row(table, "BYOL", ours=True).cells]
    assert ours == [f"{60 + place}.0" for place in range(12)] + ["65.5"]
    theirs = [cell.value for cell in row(table, "BYOL", ours=False).cells]
    # BYOL (2006.07733), Table 3; its mean by hand: 931.4 / 12
    assert theirs == (
        [
            "75.3",
            "91.3",
            "78.4",
            "57.2",
            "62.2",
            "67.8",
            "60.6",
            "82.5",
            "75.5",
            "90.4",
            "94.2",
            "96.1",
            "77.6",
        ]
    )
    assert [r.label for r in table.rows if not r.ours] == [
        "BYOL",
        "SimCLR (BYOL repro)",
        "SimCLR",
        "Supervised",
    ]


def test_the_mean_is_over_all_twelve_or_not_there() -> None:
    complete, partial = twelve("byol", 60.0, seeds=(0, 1)), twelve("harl", 61.0, without="pets")
    table = tables(*complete, *partial)["twelve-linear"]
    mean = row(table, "BYOL", ours=True).cells[-1]
    assert mean.estimate
    assert mean.estimate.values == (65.5, 66.5)  # a mean a seed
    assert mean.spread == "± 0.7"
    assert row(table, "HARL", ours=True).cells[-1].value == MISSING
    assert any(text.startswith("Mean: over the 12 columns") for _, text in table.notes)
    alone = tables(*partial)["twelve-linear"]
    assert len(alone.columns) == 12
    assert not any(text.startswith("Mean:") for _, text in alone.notes)


def test_a_mean_of_marked_numbers_is_marked() -> None:
    whole, *others = twelve("byol", 60.0), twelve("harl", 61.0), twelve("simclr", 62.0)
    departing = [r.model_copy(update={"departures": ["batch 8"]}) for r in others[1]]
    part = [
        r.model_copy(update={"departures": ["no background"]}) if r.dataset == "caltech101" else r
        for r in others[0]
    ]
    table = tables(*whole, *part, *departing)["twelve-linear"]
    marks = {r.label: (r.marks, r.cells[0].marks, r.cells[-1].marks) for r in table.rows}
    assert marks == {"BYOL": ("", "", ""), "HARL": ("", "", "†"), "SimCLR": ("†", "", "")}


def test_the_best_mean_is_bold_and_toy_ones_do_not_compete_with_real_ones() -> None:
    made = [*twelve("byol", 60.0), *twelve("harl", 61.0), *twelve("simclr", 90.0, toy=True)]
    table = tables(*made)["twelve-linear"]
    assert [r.label for r in table.rows if r.cells[-1].best] == ["HARL"]


def test_six_sets_have_the_papers_table_alone() -> None:
    cars = result("classify", "byol", dataset="cars", protocol="finetune")
    assert set(tables(cars)) == {"table2-finetune"}
    pets = result("classify", "byol", dataset="pets", protocol="finetune")
    assert set(tables(pets)) == {"twelve-finetune"}
    assert set(tables(cars, pets)) == {"table2-finetune", "twelve-finetune"}


def test_the_summary_and_the_finding_take_each_sets_own_metric() -> None:
    table = tables(*twelve("byol", 60.0), *twelve("random", 30.0))["summary"]
    metrics = [(c.dataset, c.metric) for c in table.columns[:-1]]
    assert metrics == [(name, OWN.get(name, "top1")) for name in TWELVE]
    varying = {"random": (30.0, 30.1, 30.4), "byol": (40.0, 40.2, 40.3)}
    made = [
        result("classify", method, seed, dataset="pets", protocol="linear").model_copy(
            update={"metrics": {"top1": 10.0, "mean_per_class": score}}
        )
        for method, scores in varying.items()
        for seed, score in enumerate(scores)
    ]
    text = finding(list(tables(*made).values()))
    assert text.startswith("BYOL is 10.0 points above Random init in mean per class on pets")


def svm(method: str, score: float) -> list[Result]:
    shots = {f"k{k}/mAP": score - 40 + k / 4 for k in (1, 2, 4, 8, 16, 32, 64, 96)}
    return [
        result("classify", method, dataset="voc2007-cls", protocol=protocol).model_copy(
            update={"metrics": metrics}
        )
        for protocol, metrics in (("svm", {"mAP": score}), ("svm-lowshot", shots))
    ]


def test_voc07_svm_with_all_images_and_low_shot() -> None:
    table = tables(*svm("byol", 85.0), *svm("harl", 86.0), against=True)["voc07-svm"]
    assert [c.heading for c in table.columns] == [
        "all images",
        *map(str, (1, 2, 4, 8, 16, 32, 64, 96)),
    ]
    ours = [cell.value for cell in row(table, "BYOL", ours=True).cells]
    assert ours == ["85.0", "45.2", "45.5", "46.0", "47.0", "49.0", "53.0", "61.0", "69.0"]
    theirs = [cell.value for cell in row(table, "BYOL (200 ep)", ours=False).cells]
    # mmselfsup's README of BYOL: 86.31 45.37 56.83 68.47 74.12 78.30 81.53 83.56 84.73
    assert theirs == ["86.3", "45.4", "56.8", "68.5", "74.1", "78.3", "81.5", "83.6", "84.7"]


def neighbours(method: str, score: float, dataset: str = "imagenet") -> Result:
    values = {f"k{k}/top1": score - k / 100 for k in (10, 20, 100, 200)}
    return result("classify", method, dataset=dataset, protocol="knn").model_copy(
        update={"metrics": values | {"k20/top5": 80.0}}
    )


def test_nearest_neighbours_stand_in_the_headline_tables_with_every_k() -> None:
    linear = result("classify", "byol", dataset="imagenet", protocol="imagenet-linear", score=66.0)
    shown = tables(neighbours("byol", 60.0), neighbours("harl", 59.0), linear, against=True)
    table = shown["imagenet-probes"]
    ours = [cell.value for cell in row(table, "BYOL", ours=True).cells]
    assert ours == ["66.0", "59.9", "59.8", "59.0", "58.0"]
    peer = [cell.value for cell in row(table, "BYOL (200 ep)", ours=False).cells]
    assert peer == [MISSING, "63.9", "64.2", "62.9", "61.9"]
    lightly = row(table, "BYOL (100 ep)", ours=False)
    assert [cell.value for cell in lightly.cells] == ["62.5", MISSING, MISSING, MISSING, "46.0"]
    assert lightly.cells[4].marks
    assert not lightly.cells[0].marks
    assert {"k10 top-1", "k20 top-1", "k100 top-1", "k200 top-1"} < {
        c.heading for c in shown["summary"].columns
    }


def test_of_the_neighbours_only_k_20_counts_in_the_mean_rank() -> None:
    """HARL wins with k = 20 and on the other set: 1.0, though it loses with three other k."""
    byol, harl = neighbours("byol", 60.0, "cifar10"), neighbours("harl", 59.0, "cifar10")
    harl.metrics["k20/top1"] = 70.0
    made = [byol, harl]
    made += [
        result("classify", m, dataset="dtd", protocol="linear", score=s)
        for m, s in (("byol", 60.0), ("harl", 61.0))
    ]
    table = tables(*made)["summary"]
    ranks = {r.label: r.cells[-1].value for r in table.rows}
    assert ranks == {"BYOL": "2.0", "HARL": "1.0"}
    assert any("k = 20 alone counts" in text for _, text in table.notes)


@pytest.mark.parametrize("method", ["saliency_mask", "harl"])
def test_chins_flowers_are_our_set_of_that_name(method: str) -> None:
    made = result("classify", method, dataset="flowers", protocol="linear")
    shown = tables(made, against=True)
    assert ("saliency" in shown) == (method == "saliency_mask")
    if "saliency" in shown:
        supervised = row(shown["saliency"], "Supervised", ours=False)
        assert [cell.value for cell in supervised.cells[:3]] == ["82.7", "22.0", "20.3"]


def test_no_row_wins_by_the_spread_of_its_samples() -> None:
    runs = [
        result("classify", method, seed, dataset="pets", protocol="svm-lowshot").model_copy(
            update={"metrics": {"k1/mAP": score + 0.1 * seed, "k1/sd": score / 10 + 0.1 * seed * i}}
        )
        for i, (method, score) in enumerate((("random", 20.0), ("byol", 60.0)))
        for seed in range(3)
    ]
    table = tables(*runs)["classify-pets-svm-lowshot"]
    assert [column.metric for column in table.columns] == ["k1/mAP", "k1/sd"]
    score, spread = row(table, "BYOL", ours=True).cells
    assert (score.best, spread.best, spread.stars) == (True, False, "")
    assert spread.value == "6.1"
