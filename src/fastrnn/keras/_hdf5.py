"""HDF5 files as untrusted input: no links out of the file, no declared size that the file does not hold."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect

Array = NDArray[Any]

MAX_DEPTH = 50  # groups inside groups
MAX_GROUPS = 100_000


def h5py_library() -> Any:
    """Return the module h5py."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("fastrnn.keras needs h5py: pip install 'fastrnn[keras]'") from error
    return h5py


class File:
    """An HDF5 file, or one inside a .keras archive; messages name it ``where``."""

    def __init__(self, source: Any, where: str) -> None:
        self.where = where
        self._h5py = h5py_library()
        try:
            self._file = self._h5py.File(source, "r")
        except OSError as error:
            if isinstance(source, (str, os.PathLike)) and not os.path.exists(source):
                raise
            raise ValueError(f"{where}: not a sound HDF5 file: {error}") from error
        self.root = self._file["/"]
        self.size = source.getbuffer().nbytes if hasattr(source, "getbuffer") else os.stat(source).st_size

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def child(self, group: Any, name: str) -> Any:
        """Return what a group holds by a name, or None. Only what stands in this file itself is read."""
        item = group
        for part in filter(None, name.split("/")):
            if not isinstance(item, self._h5py.Group) or part not in item:
                return None
            link = item.get(part, getlink=True)
            got = type(link).__name__
            hard = isinstance(link, self._h5py.HardLink)
            expect(hard, f"{self.where}: {item.name}/{part}", "a part of this file", got)
            item = item[part]
        return item

    def is_group(self, item: Any) -> bool:
        """Whether an item is a group."""
        return isinstance(item, self._h5py.Group)

    def array(self, dataset: Any) -> Array:
        """Return the numbers of a dataset, as floats of the machine's own byte order."""
        what = f"{self.where}: {getattr(dataset, 'name', 'weights')}"
        fits = isinstance(dataset, self._h5py.Dataset)
        expect(fits, what, "an array", "none" if dataset is None else type(dataset).__name__)
        expect(dataset.dtype.kind == "f", what, "an array of floats", dataset.dtype)
        expect(
            not dataset.is_virtual and not dataset.external,
            what,
            "numbers in this file",
            "a reference to others",
        )
        plain = dataset.compression is None and dataset.id.get_create_plist().get_nfilters() == 0
        expect(plain, what, "numbers that are not compressed", "a compressed array")
        held, declared = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
        fits = held >= declared <= self.size  # what it is said to hold may be more than the file has
        expect(fits, what, f"the {declared} bytes that it declares", min(held, self.size))
        expect(dataset.ndim <= 2, what, "one or two axes", f"shape {dataset.shape}")
        array = np.asarray(dataset[()])
        kind = np.float64 if array.dtype.itemsize > 4 else np.float32
        return array.astype(kind, copy=False)

    def texts(self, group: Any, name: str) -> list[str]:
        """Return a list of names that an attribute holds, which Keras cuts up where it is long."""
        found: list[list[str]] = []
        if name in group.attrs:
            return self._texts(group, name)
        while f"{name}{(k := len(found))}" in group.attrs:
            found.append(self._texts(group, f"{name}{k}"))
        return [text for texts in found for text in texts]

    def _texts(self, group: Any, name: str) -> list[str]:
        values = np.asarray(self._attribute(group, name)).ravel()
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]

    def _attribute(self, group: Any, name: str) -> Any:
        """Return the value of an attribute that declares no more than the file has."""
        found = group.attrs.get_id(name)
        declared = math.prod(found.shape) * found.dtype.itemsize
        what = f"{self.where}: attribute {name}"
        expect(declared <= self.size, what, f"at most {self.size} bytes", declared)
        return group.attrs[name]

    def text(self, group: Any, name: str) -> str:
        """Return a text that an attribute holds, "" where there is none."""
        if name not in group.attrs:
            return ""
        value = self._attribute(group, name)
        value = value.decode() if isinstance(value, bytes) else value
        expect(isinstance(value, str), f"{self.where}: attribute {name}", "text", type(value).__name__)
        return str(value)

    def groups(
        self, group: Any, path: str = "", depth: int = 0, seen: set[Any] | None = None
    ) -> Iterator[Any]:
        """Yield (path, group) of all groups below one, each once, in the order of their names."""
        seen = set() if seen is None else seen
        expect(depth < MAX_DEPTH, f"{self.where}: groups", f"at most {MAX_DEPTH} inside one another", "more")
        place = self._h5py.h5o.get_info(group.id).addr
        if place in seen:
            return
        seen.add(place)
        expect(len(seen) <= MAX_GROUPS, f"{self.where}: groups", f"at most {MAX_GROUPS}", "more")
        yield path, group
        for name in group:
            item = self.child(group, name)
            if self.is_group(item):
                yield from self.groups(item, f"{path}/{name}" if path else name, depth + 1, seen)
