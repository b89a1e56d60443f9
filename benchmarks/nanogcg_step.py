"""The real nanoGCG's cost a candidate against ours, in units that compare across processes.

nanoGCG needs an older transformers, so it needs an environment of its own. Both processes time the same
matrix product on one thread; `product operations a candidate` is seconds of processor time x the product's
rate / candidates: what the step would have cost had every operation run at the product's speed. One context
of about 128 tokens left of the prompt, 8 prompt tokens, one parent.

    python -m venv /tmp/nanogcg && /tmp/nanogcg/bin/pip install nanogcg==0.3.0 torch==2.13.0
    OMP_NUM_THREADS=1 /tmp/nanogcg/bin/python benchmarks/nanogcg_step.py MODEL_DIRECTORY
    OMP_NUM_THREADS=1 python -m benchmarks.nanogcg_step --ours MODEL_DIRECTORY
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

WORDS = [
    "river",
    "stone",
    "garden",
    "window",
    "light",
    "morning",
    "paper",
    "market",
    "doctor",
    "teacher",
    "winter",
    "summer",
    "music",
]
QUESTION = " ".join(WORDS[i % len(WORDS)] for i in range(119))


def matmul_rate(tokens: int = 256, d_model: int = 576, d_mlp: int = 1536, repeats: int = 5) -> float:
    """Operations a second of processor time, the best of several products of an MLP's shapes."""
    left, right = torch.randn(tokens, d_model), torch.randn(d_model, d_mlp)

    def products() -> None:
        for _ in range(8):
            left @ right

    return 8 * 2 * tokens * d_model * d_mlp / min(seconds(products) for _ in range(repeats + 1))


def seconds(run: Callable[[], object]) -> float:
    """Processor time, which other programs do not disturb."""
    began = time.process_time()
    run()
    return time.process_time() - began


def nanogcg_step(directory: Path, candidates: int, steps: int) -> dict[str, float]:
    """Seconds of a step of nanogcg.run: the difference of two runs, so that what is done once does not count."""
    import nanogcg
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32).eval()
    template = (directory / "chat_template.jinja").read_text()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), chat_template=template, eos_token="<|im_end|>"
    )

    def run(n: int) -> None:
        settings = {
            "search_width": candidates,
            "topk": 64,
            "optim_str_init": "x x x x x x x x",
            "filter_ids": False,
            "verbosity": "ERROR",
            "seed": 0,
        }
        nanogcg.run(
            model, tokenizer, QUESTION + "\n{optim_str}", "yes", nanogcg.GCGConfig(num_steps=n, **settings)
        )

    return {"step": (seconds(lambda: run(1 + steps)) - seconds(lambda: run(1))) / steps}


def our_steps(directory: Path, candidates: int, steps: int) -> dict[str, float]:
    """Seconds of a step of our GCG: on the answer's log-probability (full depth), and on a projection at half depth."""
    from workbench.contexts import make_contexts
    from workbench.models import Site, load_model, runner_for
    from workbench.objectives import AnswerLogProbObjective, ProjectionObjective
    from workbench.personas import Item, Persona, Split
    from workbench.search import GCG, Scorer
    from workbench.search.toolkit import SearchToolkit

    runner = runner_for(load_model(directory))
    items = tuple(Item(name, QUESTION, "yes", "no", name) for name in "ab")
    persona = Persona("cost", "one question, twice", items, "text", None, {"suppress": (), "induce": ()}, ())
    contexts = make_contexts(runner, Split("cost", persona.items[:1], persona), "after_question")
    vector = torch.nn.functional.normalize(
        torch.randn(runner.shape.d_model, generator=torch.Generator().manual_seed(0)), dim=0
    )
    found = {"context tokens": float(len(contexts[0].prefix_ids))}
    for name, goal in (
        ("step", AnswerLogProbObjective(0)),
        ("step, half depth", ProjectionObjective(vector, Site(runner.shape.n_layers // 2 - 1), "raw")),
    ):
        bench = SearchToolkit.make(Scorer(runner, goal, contexts), seed=0)
        method = GCG(length=8, children=candidates, top_k=64)
        parents = bench.random_prompts(1, 8)

        def step(bench: SearchToolkit = bench, method: GCG = method, parents: torch.Tensor = parents) -> None:
            prepared = bench.scorer.prepare(parents)
            bench.scorer.score_children(prepared, method.propose(bench, prepared, 0))

        step()
        found[name] = sum(seconds(step) for _ in range(steps)) / steps
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    before = matmul_rate()
    found = (our_steps if arguments.ours else nanogcg_step)(
        arguments.model, arguments.candidates, arguments.steps
    )
    rate = max(before, matmul_rate())
    for name in [name for name in found if name.startswith("step")]:
        found[f"product operations a candidate, {name}"] = found[name] * rate / arguments.candidates
    print(
        json.dumps(
            {
                "who": "ours" if arguments.ours else "nanogcg",
                "candidates": arguments.candidates,
                "product_rate": rate,
            }
            | found,
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
