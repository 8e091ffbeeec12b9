"""Views of a model: a table of its modules, and the curves of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(title: str, modules: Mapping[str, Any]) -> str:
    """Return a text with a line for each module, and the sum of their parameters."""
    rows = [(name, repr(module), module.flat.size) for name, module in modules.items()]
    rows.append(("total", "", sum(size for _, _, size in rows)))
    width, kind = (max(len(str(row[i])) for row in rows) for i in (0, 1))
    lines = [f"  {name:{width}}  {module:{kind}}  {size:>12,}" for name, module, size in rows]
    return "\n".join([title, *lines])


def curves(history: Sequence[Mapping[str, Any]], ax: Any = None) -> Any:
    """Draw loss and val_loss by epoch, and return the axes."""
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError("plot_history needs matplotlib: pip install 'fastrnn[demo]'") from error
        _, ax = pyplot.subplots()
    for key, label in (("loss", "training"), ("val_loss", "validation")):
        lines: dict[Any, list[Any]] = {}  # one for each network
        for log in history:
            if key in log:
                lines.setdefault(log.get("estimator"), []).append((log["epoch"], log[key]))
        color = None
        for points in lines.values():
            own = {"label": label} if color is None else {"color": color}
            marker = "." if len(points) < 30 else None
            color = ax.plot(*zip(*points, strict=True), marker=marker, **own)[0].get_color()
    ax.set(xlabel="epoch", ylabel="loss (mean of a target)")
    if ax.lines:
        ax.legend()
    return ax
