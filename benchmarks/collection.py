"""Activations: tokens a second of `collect` against a bare Hugging Face forward pass that ends at the same layer.

The same 64 sequences of 128 tokens, read at the last token after the middle block, in batches of equal size,
in turn. The bare pass is the model's own decoder cut to its first blocks, without cache, head or final use of
what it gives.

    OMP_NUM_THREADS=1 python -m benchmarks.collection --models llama smollm
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from benchmarks.cost_settings import Loaded, load
from benchmarks.search_cost import seconds
from workbench.activations import collect
from workbench.models import Site


def measure(loaded: Loaded, n: int, tokens: int, batch: int, repeats: int) -> dict[str, object]:
    """Median tokens a second of both, and the ratio's median and range."""
    sequences = torch.randint(
        10, loaded.runner.shape.d_vocab, (n, tokens), generator=torch.Generator().manual_seed(0)
    )
    site = Site(loaded.runner.shape.n_layers // 2 - 1)
    body, layers = loaded.reference.model, loaded.reference.model.layers
    body.layers = layers[: site.layer + 1]

    @torch.no_grad()
    def bare() -> None:
        for rows in sequences.split(batch):
            body(input_ids=rows.to(loaded.runner.device), use_cache=False)

    def ours() -> None:
        collect(loaded.runner, sequences.tolist(), [site], batch_tokens=batch * tokens)

    ours(), bare()
    turns = [(seconds(ours), seconds(bare)) for _ in range(repeats)]
    body.layers = layers
    ratios = sorted(theirs / mine for mine, theirs in turns)
    rates = [n * tokens / statistics.median(turn[i] for turn in turns) for i in (0, 1)]
    return {
        "model": loaded.name,
        "ours": rates[0],
        "bare": rates[1],
        "ratio": statistics.median(ratios),
        "low": ratios[0],
        "high": ratios[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["llama", "smollm"])
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "collection.json")
    arguments = parser.parse_args()
    rows = [
        measure(load(name), arguments.sequences, tokens=128, batch=8, repeats=arguments.repeats)
        for name in arguments.models
    ]
    for row in rows:
        print(*(f"{key} {value:.2f}" if isinstance(value, float) else value for key, value in row.items()))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"benchmark": "collection", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
