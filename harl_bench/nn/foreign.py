"""Files that stand where a checkpoint should, by how they begin: what each is, and what to do."""

import re
from pathlib import Path

from harl_bench.core.errors import CheckpointError

UNPACK, WEIGHTS = "unpack it", "give the file with the weights"
FOREIGN = tuple(
    (re.compile(begins, re.DOTALL), what, remedy)
    for begins, what, remedy in (
        (rb"\x1f\x8b", "a gzip file", "gunzip it"),
        (rb"BZh", "a bzip2 file", UNPACK),
        (rb"\xfd7zXZ", "an xz file", UNPACK),
        (rb"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
        (rb"7z\xbc\xaf", "a 7z archive", UNPACK),
        (rb"\x89HDF", "an HDF5 file (Keras)", "load it there and save PyTorch weights"),
        (rb"\x93NUMPY", "one NumPy array, not a checkpoint", WEIGHTS),
        (
            rb"model_checkpoint_path:",
            "TensorFlow's note of where its checkpoint lies",
            "read that with tf.train.load_checkpoint and torch.save its arrays under "
            "torchvision's names",
        ),
        (rb"GGUF", "a GGUF file", "give the PyTorch weights"),
        (rb"\x89PNG", "an image", WEIGHTS),
        (rb"\xff\xd8\xff", "an image", WEIGHTS),
        (
            rb"(?:[\x81-\x8f]|\xde..)[\xa1-\xbf\xd9]",
            "flax's msgpack, not a checkpoint of torch's",
            "read it with flax.serialization.msgpack_restore and torch.save its arrays under "
            "torchvision's names",
        ),
        (
            rb"\x08[\x03-\x14][\x12\x1a\x22\x3a\x42]",
            "an ONNX graph, whose batch norms are folded as a rule",
            "give the PyTorch weights that it was exported from",
        ),
        (
            rb"\x08\x01\x12",
            "a TensorFlow SavedModel: a graph, not weights by name",
            "read its variables/variables with tf.train.load_checkpoint and torch.save them under "
            "torchvision's names",
        ),
    )
)
# ends every .index of TensorFlow's (tensorflow/core/lib/io/format.h)
TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"


def refuse_foreign(path: Path, head: bytes) -> None:
    """Look at the first bytes of a file.

    Raises:
        CheckpointError: it is empty, a Git-LFS pointer, a web page, or something else that torch
            did not write.
    """
    size = path.stat().st_size
    again = "download it again"
    if size == 0:
        raise CheckpointError("checkpoint is empty", where=path, seen="0 bytes", next=again)
    if head.startswith(b"version https://git-lfs"):
        stated = re.search(rb"^size (\d+)\s*$", head, re.MULTILINE)
        raise CheckpointError(
            "a Git-LFS pointer, not the checkpoint itself",
            where=path,
            seen=f"{size} bytes that stand for {int(stated[1]):,}" if stated else None,
            next="git lfs pull",
        )
    if re.match(rb"\s*<[!?a-zA-Z]", head):  # a lone "<" may be the length of a safetensors header
        seen = head.lstrip()[:40].decode("utf-8", "replace")
        raise CheckpointError("a web page saved as a checkpoint", where=path, seen=seen, next=again)
    for pattern, what, remedy in FOREIGN:
        if pattern.match(head):
            raise CheckpointError(what, where=path, next=remedy)
    with open(path, "rb") as file:
        file.seek(max(size - len(TENSORFLOW), 0))
        index = file.read() == TENSORFLOW
    if index or re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        raise CheckpointError(
            "a part of a TensorFlow checkpoint, not one of torch's",
            where=path,
            next=(
                "read it with tf.train.load_checkpoint and torch.save its arrays under "
                "torchvision's names"
            ),
        )
