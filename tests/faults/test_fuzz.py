"""Mutated files: each is read with its fault listed or refused in one line, within bounds."""

import io
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.core.errors import BenchError, DataError, UsageError, from_os_error
from tests.detection import tiny
from tests.faults import FULL, mutation
from tests.report import report_store

ROUNDS = 900 if FULL else 60  # of each kind
SECONDS, GIB = 10, 1 << 30


@contextmanager
def bounded() -> Iterator[None]:
    """Fail what takes ten seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def assault(
    path: Path,
    ways: tuple,
    read: Callable[[], object],
    kind: type[BenchError] | tuple[type[BenchError], ...],
    seed: int,
) -> tuple[int, int]:
    """Mutate a file ROUNDS times; counts of reads and refusals.

    Anything but success or one line of `kind` raises.
    """
    good = path.read_bytes()
    read()
    taken = refused = 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(ROUNDS):
        random = np.random.default_rng([seed, number])
        damaged = mutation.mutated(good, random, ways)
        path.write_bytes(damaged)
        try:
            with bounded():
                read()
            taken += 1
        except (BenchError, OSError) as error:
            is_disk = isinstance(error, OSError) and not isinstance(error, TimeoutError)
            fault = from_os_error(error) if is_disk else error
            if not isinstance(fault, kind):
                raise AssertionError(
                    f"seed {seed}, round {number}: {type(error).__name__}: {error}"
                ) from error
            line = fault.line()
            assert "\n" not in line, f"round {number}: {line}"
            assert len(line) < 2000, f"round {number}: {len(line)} characters: {line[:300]}"
            refused += 1
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, round {number}: {type(error).__name__}: {error}"
            ) from error
    path.write_bytes(good)
    read()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < 2 * GIB
    return taken, refused


def photo(format: str, mode: str, **options: object) -> bytes:
    pixels = np.random.default_rng(5).integers(0, 255, (40, 52, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, format=format, **options)
    return out.getvalue()


IMAGES = {
    "jpeg": photo("JPEG", "RGB"),
    "progressive": photo("JPEG", "RGB", progressive=True),
    "cmyk": photo("JPEG", "CMYK"),
    "png": photo("PNG", "RGB"),
    "palette": photo("PNG", "P"),
    "webp": photo("WEBP", "RGB"),
    "tiff": photo("TIFF", "RGB"),
    "gif": photo("GIF", "P"),
    "bmp": photo("BMP", "RGB"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images(tmp_path: Path, kind: str) -> None:
    from harl_bench.core.images import read_mask, read_rgb

    path = tmp_path / "a.jpg"
    path.write_bytes(IMAGES[kind])

    def read() -> None:
        image = read_rgb(path)
        assert image.mode == "RGB"
        try:
            mask = np.asarray(read_mask(path))
        except DataError as error:  # a palette of more than two colors is whole, but no mask
            if "a label image of several classes" not in str(error):
                raise
        else:
            assert set(np.unique(mask)) <= {0, 255}

    assault(path, mutation.BYTES, read, DataError, 1)


def test_voc_xml(tmp_path: Path) -> None:
    from harl_bench.detection.datasets import voc
    from harl_bench.detection.scoring import Prediction, score

    root = tiny.voc(tmp_path / "voc", train=2, test=2)
    path = root / "VOC2007/Annotations/000003.xml"

    def read() -> None:
        dataset = voc.read(root, "voc_2007_test")
        for sample in dataset.samples:
            assert np.isfinite(sample.boxes).all()
            assert sample.boxes.shape == (len(sample.classes), 4)
        none = [
            Prediction(s.image_id, np.zeros((0, 4), np.float32), [], []) for s in dataset.samples
        ]
        assert score(dataset, none, masks=False).metrics["AP"] == 0

    taken, refused = assault(path, mutation.TEXT, read, DataError, 2)
    assert taken, "harmless changes are no fault"
    assert refused > taken / 4, "broken files are seen"


def test_voc_lists(tmp_path: Path) -> None:
    from harl_bench.detection.datasets import voc

    root = tiny.voc(tmp_path / "voc", train=2, test=4)
    assault(
        root / "VOC2007/ImageSets/Main/test.txt",
        mutation.TEXT,
        lambda: voc.read(root, "voc_2007_test"),
        DataError,
        3,
    )


def test_coco_json(tmp_path: Path) -> None:
    from harl_bench.detection.datasets import coco
    from harl_bench.detection.scoring import Prediction, score

    root = tiny.coco(tmp_path / "coco", train=2, test=3)
    (path,) = root.rglob("instances_val2017.json")

    def read() -> None:
        dataset = coco.read(root, "coco_2017_val", scored=True)
        for sample in dataset.samples:
            assert np.isfinite(sample.boxes).all()
        box = np.array([[1, 1, 9, 9]], np.float32)
        predictions = [Prediction(s.image_id, box, [0.5], [0]) for s in dataset.samples]
        metrics = score(dataset, predictions, masks=False, library="pycocotools").metrics
        assert all(value is None or 0 <= value <= 100 for value in metrics.values())

    assault(path, mutation.JSON, read, DataError, 4)


@pytest.mark.parametrize("kind", ["detection", "pretrain", "suite", "classify", "project"])
def test_yaml(tmp_path: Path, kind: str) -> None:
    from harl_bench.classify import protocol
    from harl_bench.core.resources import data_dir
    from harl_bench.detection import recipe
    from harl_bench.suite import config
    from pretrain import recipe as pretraining

    root = Path(recipe.__file__).parents[2]
    source, load = {
        "detection": (data_dir("transfer_configs") / "toy/coco-fpn-toy.yaml", recipe.load),
        "pretrain": (
            root / "pretrain/recipes/harl-toy.yaml",
            lambda p: pretraining.load(str(p), None, []),
        ),
        "suite": (Path(config.__file__).parent / "suites/toy.yaml", lambda p: config.load(str(p))),
        "classify": (
            Path(protocol.__file__).parent / "protocols/linear-toy.yaml",
            lambda p: protocol.load(str(p)),
        ),
    }.get(kind, (None, None))
    if source is None:
        from harl_bench.core.config import read_yaml

        source, load = root / "transfer_configs/base-fpn.yaml", read_yaml
    path = tmp_path / source.name
    shutil.copy(source, path)
    if kind == "detection":
        path.write_text(path.read_text().replace("../coco/", f"{source.parent.parent}/coco/"))
    assault(path, mutation.TEXT, lambda: load(path), (UsageError, DataError), 6)


def test_results_and_reports(tmp_path: Path) -> None:
    from harl_bench.core.results import scan

    folders = report_store.write(tmp_path, *report_store.small())
    path = folders[0] / "result.json"

    def read() -> None:
        results, faults = scan(tmp_path)
        assert len(results) + len(faults) == len(folders), "broken ones are named, others kept"
        for fault in faults:
            raise fault

    assault(path, mutation.JSON, read, DataError, 7)


def test_manifests_and_metrics(tmp_path: Path) -> None:
    from harl_bench.core.progress import read_metrics
    from harl_bench.masks import manifests

    rows = [
        manifests.Row(f"é {i}.jpg", 3, 4, 5, 0.5, 1, "0" * 64, "external", "{}", "none")
        for i in range(20)
    ]
    path = tmp_path / "manifest.csv"
    manifests.write(path, rows)
    assault(path, mutation.TEXT, lambda: manifests.read(tmp_path), DataError, 8)
    report_store.metrics_file(tmp_path)
    assault(
        tmp_path / "metrics.jsonl",
        mutation.TEXT,
        lambda: read_metrics(tmp_path / "metrics.jsonl"),
        DataError,
        9,
    )


BOMBS = {
    "billion.xml": f'<!DOCTYPE a [<!ENTITY b "lol"><!ENTITY c "{"&b;" * 10}">]><annotation>&c;</annotation>',
    "external.xml": '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
    "deep.xml": "<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>",
    "deep.json": '{"images":' + "[" * 100_000 + "]" * 100_000 + "}",
    "aliases.yaml": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{c}: &{c} [{', '.join([f'*{b}'] * 9)}]\n"
        for b, c in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "deep.yaml": "a: " + "[" * 5_000 + "]" * 5_000,
    "tag.yaml": "a: !!python/object/apply:os.system ['touch pwned']",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harl_bench.detection import recipe
    from harl_bench.detection.datasets import coco, voc

    monkeypatch.chdir(tmp_path)
    if name.endswith(".xml"):
        root = tiny.voc(tmp_path / "d", train=2, test=2)
        target, read = (
            root / "VOC2007/Annotations/000003.xml",
            lambda: voc.read(root, "voc_2007_test"),
        )
    elif name.endswith(".json"):
        root = tiny.coco(tmp_path / "d", train=2, test=2)
        (target,), read = (
            root.rglob("instances_val2017.json"),
            lambda: coco.read(root, "coco_2017_val"),
        )
    else:
        target, read = tmp_path / name, lambda: recipe.load(tmp_path / name)
    target.write_text(BOMBS[name])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with bounded(), pytest.raises(BenchError) as caught:
        read()
    assert "\n" not in caught.value.line()
    assert len(caught.value.line()) < 2000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < GIB
    assert not (tmp_path / "pwned").exists()


def test_an_image_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    """A PNG of 30,000 x 30,000 black pixels has some megabytes on disk and 2.7 GB in memory."""
    import struct
    import zlib

    from harl_bench.core.images import read_rgb

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(90_001)) for _ in range(30_000)) + rows.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with bounded(), pytest.raises(DataError, match="pixels"):
        read_rgb(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < GIB // 4
