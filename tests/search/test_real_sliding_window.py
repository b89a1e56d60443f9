"""Cached scores of a real model with a sliding window, on contexts longer than it, against plain full passes of Hugging Face's model."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.support.search_contexts import random_projection
from workbench.contexts import Context, Contexts
from workbench.models import find_source, load_model, runner_for
from workbench.personas import Item
from workbench.search import ChildProposals, Scorer

REAL, NAME = "WORKBENCH_GGUF_MODELS", "gemma-3-270m.gguf"
WINDOW, LAYER = 512, 8


def _contexts() -> Contexts:
    """Two questions with prefixes of 560 and 540 ids of their own, so that the shorter one is padded in their batch."""
    rng = random.Random(0)
    draw = lambda k: tuple(rng.randrange(1000, 200_000) for _ in range(k))  # noqa: E731
    made = [
        Context(
            Item(str(i), "q", "yes", "no", f"g{i}"),
            False,
            "",
            "",
            draw(560 - 20 * i),
            draw(4 + i),
            draw(9),
            ((1007,), (1040,)),
        )
        for i in range(2)
    ]
    return Contexts(tuple(made), "after_question", "text", "search")


def _full_passes(directory: Path, contexts: Contexts, ids: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Projection after block LAYER at the last token, and cross-entropy of the prompt, of each prompt: every context whole."""
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    assert model.config.sliding_window == WINDOW
    rows = []
    for prompt in ids.tolist():
        found = []
        for context in contexts:
            whole = torch.tensor([[*context.prefix_ids, *prompt, *context.suffix_ids]])
            after = len(prompt) + len(context.suffix_ids)
            with torch.no_grad():
                out = model(input_ids=whole, output_hidden_states=True, logits_to_keep=after + 1)
            log_probs = out.logits[0].log_softmax(-1)
            nats = -sum(float(log_probs[i, token]) for i, token in enumerate(prompt)) / len(prompt)
            found.append((float(out.hidden_states[LAYER + 1][0, -1] @ unit), nats))
        rows.append(torch.tensor(found).mean(0))
    return torch.stack(rows)[:, 0], torch.stack(rows)[:, 1]


# Slow: about a minute of a core and 4 GB.
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cached_scores_beyond_the_window_are_those_of_full_passes() -> None:
    file = Path(os.environ.get(REAL, "")) / NAME
    if REAL not in os.environ or not file.is_file():
        pytest.skip(
            f"{NAME} is not in the directory that {REAL} names (docs/development.md says how to get it)"
        )
    runner, contexts = runner_for(load_model(file)), _contexts()
    goal = random_projection(runner.shape.d_model, LAYER)
    parents = torch.tensor([[1010, 2020, 3030, 4040, 5050]])
    children = ChildProposals(
        torch.tensor([[1010, 2020, 9990, 4040, 5050], [7777, 2020, 3030, 4040, 5050]]),
        torch.tensor([0, 0]),
        torch.tensor([2, 0]),
    )
    scorer = Scorer(runner, goal, contexts, cross_entropy_groups=2)
    assert len(scorer.groups) == 1 and len(scorer.groups[0].prefixes) == 2, (
        "both contexts are one padded batch"
    )
    before, found = scorer.score_children(scorer.prepare(parents), children)
    projections, nats = _full_passes(
        find_source(file).directory, contexts, torch.cat([parents, children.ids]), goal.vector
    )
    scale = float(projections.abs().max())
    torch.testing.assert_close(
        torch.cat([before.objective, found.objective]), projections, rtol=2e-3, atol=2e-3 * scale
    )
    torch.testing.assert_close(
        torch.cat([before.cross_entropy, found.cross_entropy]), nats, rtol=1e-3, atol=1e-3
    )
    assert (
        float((projections[0] - projections[1]).abs()) > 10 * 2e-3 * scale
        or float((nats[0] - nats[1]).abs()) > 0.1
    ), "the prompts differ"
