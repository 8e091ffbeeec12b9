"""Archives that say that they hold more than their file does."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastrnn import io


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    """A directory may name the same bytes a thousand times, so that a small file unpacks to any size."""
    path = tmp_path / "overlapping.npz"
    io.save(path, {"weight": np.ones(20_000)})
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry, local = data[start:end], data.index(b"PK\x03\x04")
    name_at = 46
    copies = 50
    # Every entry has a name of its own, as does a local header, or else zipfile itself would refuse it.
    headers = data[local:start]
    assert entry[name_at:].startswith(b"weight.npy")
    directory = b"".join(entry for _ in range(copies))
    count = struct.pack("<HHII", copies, copies, len(directory), start)
    path.write_bytes(headers + directory + data[end : end + 8] + count + data[end + 20 :])
    with zipfile.ZipFile(path) as archive:
        assert sum(member.file_size for member in archive.infolist()) > copies * 20_000 * 8
    with pytest.raises(ValueError, match=r"not a sound \.npz file: members are larger than the file"):
        io.load(path)
