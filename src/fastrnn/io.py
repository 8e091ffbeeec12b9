"""Weights in files: safetensors or ``.npz``, by the file's name; never pickle.

Files are written whole or not at all. A truncated or hostile file raises a ValueError. Every size that a file
declares is checked against the size of the file first, so that reading allocates little more than the file holds.
Compressed files (``np.savez_compressed``) are not read, because they may unpack to any size.
"""

from __future__ import annotations

import io as _io
import json
import os
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _torch_files
from fastrnn._arrays import expect, expect_writeable, misfits, readable, some
from fastrnn._compare import Comparison, compare
from fastrnn._deprecated import renamed
from fastrnn.gradients import note_change

Array = NDArray[Any]
PathLike = str | os.PathLike[str]

METADATA = "__metadata__"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1"}
_DTYPES |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?"}

# What to do with the files of other libraries, by how their names end.
_OTHER_FILES = {
    (".bin", ".ckpt", ".pkl"): ". If PyTorch wrote it: "
    "layer.load_state_dict(torch.load(path, weights_only=True), prefix=...)",
    (
        ".jit",
    ): ". A TorchScript program: layer.load_state_dict(torch.jit.load(path).state_dict(), prefix=...)",
    (".h5", ".hdf5", ".keras"): ". A model of Keras: fastrnn.keras.load(path)",
    (".npy",): ". One array: numpy.load and numpy.save",
    (".onnx",): ". An ONNX model: fastrnn.onnx.load(path)",
}

__all__ = ["Comparison", "compare", "load", "read", "restore", "save"]


class _NotRead(Exception):
    """The file may be sound, but files of its kind are not read."""


def save(path: PathLike, weights: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays, parameters of modules and states of optimisers to a ``.safetensors`` or ``.npz`` file, atomically.

    Parameters
    ----------
    path : path ending in .safetensors (needs safetensors) or .npz
    weights : dict of arrays, modules and optimisers
        The parameters of a module with the name "lstm" are named "lstm.weight_ih_l0" and so on. :func:`restore` takes
        the same dict.
    metadata : dict of str, optional

    Raises
    ------
    FileNotFoundError
        The folder does not exist.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.npz")
    >>> save(path, {"a": np.arange(3.0)}); load(path)
    {'a': array([0., 1., 2.])}
    """
    arrays: dict[str, Array] = {}
    npz = _is_npz(path)
    wanted = "a dict of arrays or of modules"
    expect(isinstance(weights, Mapping), "weights", wanted, type(weights).__name__, TypeError)
    for name, item in weights.items():
        expect(isinstance(name, str), "weights", "names that are str", type(name).__name__, TypeError)
        state = item.state_dict() if hasattr(item, "state_dict") else {None: item}
        for key, value in state.items():
            array = readable(name if key is None else f"{name}.{key}", value, "real numbers")
            array = np.ascontiguousarray(array).reshape(array.shape)
            expect(array.dtype.kind in "fiub", name, "real numbers", array.dtype, TypeError)
            known = npz or array.dtype.newbyteorder("<") in map(np.dtype, _DTYPES.values())
            expect(known, name, "a dtype that safetensors has", array.dtype, TypeError)
            full = name if key is None else f"{name}.{key}"
            expect(full not in arrays, "weights", "every name once", f"{full} twice")
            arrays[full] = array
    meta = metadata or {}
    if METADATA in arrays or not _is_text(meta):
        raise TypeError(f"metadata: expected a dict of str, and no weight named {METADATA}")
    if npz:
        buffer = _io.BytesIO()
        if meta:
            arrays[METADATA] = np.frombuffer(json.dumps(dict(meta)).encode(), np.uint8)
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                member = _io.BytesIO()
                np.lib.format.write_array(member, array, allow_pickle=False)
                # A ZipInfo has a fixed date, so that equal arrays make equal files.
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getbuffer())
        data: Any = buffer.getbuffer()
    else:
        data = _safetensors().numpy.save(arrays, dict(meta) or None)
    write_atomically(path, data)


def load(path: PathLike) -> dict[str, Array]:
    """Return the arrays of a ``.safetensors`` or ``.npz`` file, or of a PyTorch state dict in ``.pt`` or ``.pth``.

    Arrays of bfloat16 become float32, without loss. PyTorch's files need PyTorch; they are read with
    ``weights_only=True``, so that nothing is executed. In dicts inside dicts, names are joined by dots; what is no
    tensor is left out.

    Raises
    ------
    ValueError
        The file is truncated or malformed, or holds anything but plain arrays of real numbers; or it is a
        compressed .npz file.
    """
    return read(path)[0]


def read(path: PathLike) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays and the metadata of a file; otherwise as `load`."""
    if Path(path).suffix.lower() in _torch_files.ENDINGS:
        return _torch_files.read(path), {}
    npz = _is_npz(path)
    data = Path(path).read_bytes()
    try:
        return _parse_npz(data) if npz else _parse_safetensors(data)
    except ImportError:
        raise
    except _NotRead as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    except Exception as error:  # hostile bytes can make a parser raise anything
        kind = ".npz" if npz else "safetensors"
        raise ValueError(f"{os.fspath(path)}: not a sound {kind} file: {error}") from error


@renamed(pieces="modules")
def restore(path: PathLike, modules: Mapping[str, Any], *, strict: bool = True) -> dict[str, str]:
    """Read modules and optimisers from a file that `save` wrote; return the metadata of the file.

    Nothing is changed unless the file holds exactly what belongs to them.

    Parameters
    ----------
    path : path ending in .safetensors or .npz
    modules : dict of modules, optimisers and arrays
        As it was given to `save`. An array is overwritten.
    strict : bool
        Whether the file may hold nothing else. Otherwise what belongs to names that are not in `modules`, such as an
        optimiser that is not needed any more, is left alone.

    Raises
    ------
    ValueError
        The file is not sound, or entries are missing, unexpected or of another shape.

    Examples
    --------
    >>> import os, tempfile, fastrnn
    >>> lstm = fastrnn.LSTM(2, 3)
    >>> parts = {"lstm": lstm, "adam": fastrnn.optim.Adam([lstm])}
    >>> path = os.path.join(tempfile.mkdtemp(), "checkpoint.npz")
    >>> save(path, parts, {"epoch": "3"}); restore(path, parts)
    {'epoch': '3'}
    >>> restore(path, {"lstm": lstm}, strict=False)  # without the optimiser
    {'epoch': '3'}
    """
    wanted = "a dict of modules, optimisers and arrays"
    expect(isinstance(modules, Mapping), "modules", wanted, type(modules).__name__, TypeError)
    params: dict[str, Array] = {}
    states: dict[str, dict[str, Array]] = {}  # of optimisers
    for name, item in modules.items():
        if isinstance(item, np.ndarray):
            params[name] = item
        elif hasattr(item, "params"):
            params |= {f"{name}.{k}": a for k, a in item.params.items()}
        else:
            known = hasattr(item, "state_dict") and hasattr(item, "load_state_dict")
            expect(known, "modules", wanted, f"one of {type(item).__name__}", TypeError)
            states[name] = item.state_dict()
    expect_writeable("modules", params)
    arrays, metadata = read(path)
    if not strict:
        arrays = {n: a for n, a in arrays.items() if n in modules or n.partition(".")[0] in modules}
    everything = params | {f"{n}.{k}": a for n, state in states.items() for k, a in state.items()}
    if strict:
        others = {name.partition(".")[0] for name in arrays} - {name.partition(".")[0] for name in everything}
        hint = f"the file also holds {some(sorted(others))}: give them too, or strict=False"
        expect(
            not others or not everything.keys() <= arrays.keys(),
            os.fspath(path),
            f"only {some(modules)}",
            hint,
        )
    given = matching(everything, arrays, os.fspath(path))
    # An optimiser checks its numbers before it changes anything. The sizes that copies need have been checked above.
    for name, state in states.items():
        modules[name].load_state_dict({key: given[f"{name}.{key}"] for key in state})
    copy_all(params, given)
    return metadata


def write_atomically(path: PathLike, data: Any) -> None:
    """Write a file beside `path` and rename it, so that a reader sees the old file or the new one as a whole."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"path: expected a folder that exists, got {os.fspath(folder)!r}")
    temporary = f"{os.fspath(path)}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def copy_into(params: Mapping[str, Array], state: Mapping[str, ArrayLike], what: str = "state_dict") -> None:
    """Copy `state` into the arrays `params` of the same names and shapes; all or nothing."""
    copy_all(params, matching(params, state, what))


def copy_all(params: Mapping[str, Array], given: Mapping[str, Array]) -> None:
    """Copy what `matching` returned."""
    for name, array in params.items():
        array[...] = given[name]
        note_change(array, "weights that were read")


def matching(params: Mapping[str, Array], state: Mapping[str, ArrayLike], what: str) -> dict[str, Array]:
    """Return `state` as arrays of the names and shapes of `params`.

    Raises
    ------
    ValueError
        Entries are missing, unexpected or of another shape. The message names them, up to a few.
    """
    expect(isinstance(state, Mapping), what, "a dict of arrays", type(state).__name__, TypeError)
    given = {name: readable(f"{what}: {name}", value, "real numbers") for name, value in state.items()}
    wrong = misfits({name: array.shape for name, array in params.items()}, given)
    for name, array in params.items():
        if name in given and given[name].shape == array.shape:
            kinds, wanted = ("iu", "integers") if array.dtype.kind in "iu" else ("fiub", "real numbers")
            if given[name].dtype.kind not in kinds:
                wrong.append(f"{name}: expected {wanted}, got {given[name].dtype}")
    if wrong:
        raise ValueError(f"{what}: " + some(wrong, "; "))
    return given


def _is_npz(path: PathLike) -> bool:
    suffix = Path(path).suffix
    wanted = "a name ending in .safetensors or .npz"
    hint = next((hint for endings, hint in _OTHER_FILES.items() if suffix.lower() in endings), "")
    expect(suffix in (".npz", ".safetensors"), "path", wanted, repr(os.fspath(path)) + hint)
    return suffix == ".npz"


def _is_text(metadata: Any) -> bool:
    pairs = metadata.items() if isinstance(metadata, Mapping) else [(0, 0)]
    return all(isinstance(text, str) for pair in pairs for text in pair)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("a .safetensors file needs safetensors: pip install 'fastrnn[io]'") from error
    return safetensors


def _parse_safetensors(data: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError(f"the header is said to end at byte {8 + size}, the file ends at {len(data)}")
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop(METADATA, {})
    for name, entry in header.items():
        if entry["dtype"] not in (*_DTYPES, "BF16"):
            raise _NotRead(
                f"{name}: expected real numbers that NumPy has, or BF16, got dtype {entry['dtype']!r}"
            )
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(data) - 8 - size:
            raise ValueError(f"{name}: bytes {begin} to {end} lie outside the file")
    arrays = {}
    # deserialize checks that sizes fit shapes and that the arrays cover the rest of the file exactly once.
    for name, entry in _safetensors().deserialize(data):
        if entry["dtype"] == "BF16":  # the upper half of a float32
            half = np.frombuffer(entry["data"], "<u2").astype(np.uint32)
            arrays[name] = (half << np.uint32(16)).view(np.float32).reshape(entry["shape"])
            continue
        array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        arrays[name] = array.astype(array.dtype.newbyteorder("="))
    return arrays, metadata


def _parse_npz(data: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    arrays = {}
    with zipfile.ZipFile(_io.BytesIO(data)) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise _NotRead("expected an uncompressed .npz file (np.savez), got a compressed one")
        if sum(m.file_size for m in members) > len(data):
            raise ValueError("members are larger than the file")
        for member in members:
            content = _io.BytesIO(archive.read(member))
            version = np.lib.format.read_magic(content)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"{member.filename}: unknown .npy version {version}")
            read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
            shape, fortran, dtype = read(content)
            values = content.getbuffer()[content.tell() :]
            if dtype.kind not in "fiub" or len(values) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
                raise ValueError(f"{member.filename}: {len(values)} bytes cannot be {dtype} {shape}")
            array = np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C")
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"{name} is there twice")
            arrays[name] = array.astype(dtype.newbyteorder("="), order="C")
    metadata = json.loads(bytes(arrays.pop(METADATA, np.frombuffer(b"{}", np.uint8))))
    if not _is_text(metadata):
        raise ValueError("the metadata are not a dict of str")
    return arrays, metadata
