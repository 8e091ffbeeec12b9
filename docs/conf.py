"""Sphinx configuration of the site. `bash .ci/docs` builds it; every warning is an error."""

from __future__ import annotations

import os
import socket
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "fastrnn"
author = "fastrnn maintainers"
copyright = "fastrnn maintainers, BSD-3-Clause"
try:
    release = metadata.version("fastrnn")
except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
    release = "development version"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
    "repository",
]
needs_sphinx = "8.0"
root_doc = "index"
exclude_patterns = ["_build", "_ext", "_gallery", "_static", "**/README.rst"]
templates_path = ["_templates"]
default_role = "py:obj"
nitpicky = False
suppress_warnings = [
    "config.cache",  # sphinx-gallery's settings hold functions
]

# Markdown
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# API
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc says the types, with shapes
autodoc_member_order = "bysource"
# Classes of fastrnn.torch derive from PyTorch's, so that has to be installed; stand-ins do for the others.
autodoc_mock_imports = ["onnx", "h5py", "mpi4py", "stable_baselines3"]
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Links into other projects need their inventories. Without a network there are none, and the names stay plain text.
_inventories = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "sklearn": "https://scikit-learn.org/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}


def _reachable(url: str) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname or "", 443), timeout=2).close()
    except OSError:
        return False
    return True


_offline = bool(os.environ.get("DOCS_OFFLINE"))
intersphinx_mapping = (
    {} if _offline else {name: (url, None) for name, url in _inventories.items() if _reachable(url)}
)

# The gallery shows the kept pictures and figures of examples/results: no example runs while the site is built.
sphinx_gallery_conf = {
    "examples_dirs": "_gallery",
    "gallery_dirs": "examples",
    "plot_gallery": False,
    "filename_pattern": r"(?!)",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "notebook_extensions": set(),
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 1e9,
    "show_memory": False,
    "doc_module": ("fastrnn",),
    "write_computation_times": False,
    "copyfile_regex": r"",
}

# HTML
html_theme = "pydata_sphinx_theme"
html_title = "fastrnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "fastrnn"},
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {
    "index": [],
    "install": [],
    "quickstart": [],
    "migrate": ["sidebar-nav-bs"],
}
html_context = {"default_mode": "auto"}
