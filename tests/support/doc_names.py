"""What the documentation takes as given in its examples: a model, its data, a direction, latents, contexts."""

from __future__ import annotations

from typing import Any

import torch

import workbench as wb


def doc_names(organism: Any) -> dict[str, Any]:
    """The names of pages and docstrings, small: seconds of processor time."""
    persona = wb.load_persona("sycophancy")
    data = persona.split(seed=0)
    sae = wb.load_sae("organism", organism)
    scan = wb.find_directions(
        organism, data.train, data.search, layers=(2,), methods=("own_choice",), n=96, n_texts=6, n_contexts=6
    )
    return {
        "wb": wb,
        "torch": torch,
        "model": organism,
        "persona": persona,
        "data": data,
        "split": data.test,
        "scan": scan,
        "direction": scan.best,
        "sae": sae,
        "latents": wb.rank_latents(organism, sae, data.train, k=3, n=96),
        "prompt": "be blunt and critical",
        "texts": ["I think so ."] * 3,
        "contexts": wb.make_contexts(organism, data.search, n=4),
        "judge": organism,
    }
