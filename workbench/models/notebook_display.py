"""Show a model in a notebook as a small table instead of a list of its modules."""

from __future__ import annotations

import sys
from typing import Any

from workbench.html_text import html_facts
from workbench.models.runners import runner_for


def show_as_table(model: Any) -> None:
    """Let the running notebook show models of this class as a table of sizes; do nothing outside IPython."""
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell is None:
        return
    formatters = shell.display_formatter.formatters
    formatters["text/html"].for_type(
        type(model), lambda shown: html_facts(model_facts(shown), _caption(shown))
    )
    formatters["text/plain"].for_type(type(model), _print_facts)


def model_facts(model: Any) -> dict[str, object]:
    """Return a model's sizes, dtype and device as a dictionary.

    Example:
        >>> model_facts(model)["layers"]
        4
    """
    cfg, runner = model.cfg, runner_for(model)
    return {
        "layers": cfg.n_layers,
        "width": cfg.d_model,
        "heads": cfg.n_heads,
        "vocabulary": cfg.d_vocab,
        "context length": cfg.n_ctx,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "dtype": str(runner.dtype).removeprefix("torch."),
        "device": str(runner.device),
    }


def _caption(model: Any) -> str:
    return f"{model.cfg.model_name} ({type(model).__name__})"


def _print_facts(model: Any, printer: Any, cycle: bool) -> None:
    printer.text(
        f"{_caption(model)}: {', '.join(f'{name} {value}' for name, value in model_facts(model).items())}"
    )
