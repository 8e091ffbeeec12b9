"""State dicts in the files that ``torch.save`` writes, read without running anything that they contain."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect

Array = NDArray[Any]

ENDINGS = (".pt", ".pth")
MAX_DEPTH = 20  # dicts inside dicts


def read(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the tensors of a file; names of dicts inside dicts are joined by dots, other values are left out."""
    where = os.fspath(path)
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        sound = file.read(4) == b"PK\3\4"
    expect(
        sound,
        where,
        "a file of PyTorch 1.6 or newer",
        "another kind; if PyTorch wrote it, load and save it again",
    )
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # hostile bytes can make a parser raise anything
        raise ValueError(f"{where}: not a sound PyTorch file: {error}") from error
    plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    plain = plain and sum(member.file_size for member in members) <= size
    expect(plain, where, "an archive that is not compressed", "one that holds more than its size")
    names = {member.filename.split("/", 1)[-1] for member in members}
    script = "constants.pkl" in names
    expect(not script, where, "a state dict", "a TorchScript program: save torch.jit.load(path).state_dict()")
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{where}: reading it needs PyTorch: pip install 'fastrnn[torch]'. "
            "Or save the weights as .safetensors where PyTorch is installed"
        ) from error
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).split(". This file can still be loaded")[0].splitlines()
        raise ValueError(
            f"{where}: expected a state dict, as torch.save(model.state_dict(), path) writes it, got a file that "
            f"torch.load(weights_only=True) refuses: {first[0] if first else type(error).__name__}"
        ) from error
    expect(isinstance(held, Mapping), where, "a state dict", type(held).__name__)
    tensors = dict(_tensors(torch, held, "", where, 0))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    expect(total <= size, where, f"tensors of at most {size} bytes, as the file has", total)
    return {name: _array(torch, tensor, f"{where}: {name}") for name, tensor in tensors.items()}


def _tensors(
    torch: Any, held: Mapping[Any, Any], prefix: str, where: str, depth: int
) -> Iterator[tuple[str, Any]]:
    expect(depth < MAX_DEPTH, where, f"at most {MAX_DEPTH} dicts inside one another", "more")
    for key, value in held.items():
        name = f"{prefix}{key}"
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, Mapping):
            yield from _tensors(torch, value, f"{name}.", where, depth + 1)


def _array(torch: Any, tensor: Any, where: str) -> Array:
    dense = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    expect(
        dense, where, "a dense tensor of real numbers", f"{tensor.layout}, {tensor.dtype} on {tensor.device}"
    )
    expect(not tensor.is_complex(), where, "real numbers", tensor.dtype)
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # without loss; NumPy does not have it
        tensor = tensor.float()
    try:
        return np.array(tensor.numpy())
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{where}: expected real numbers that NumPy has, got {tensor.dtype}") from error
