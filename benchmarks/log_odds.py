"""Log-odds against plain Hugging Face: real models, float32 and bfloat16, about 700 tokens, three slots.

The reference knows nothing of the workbench: the whole text of question, prompt and answer is tokenized by
the model's tokenizer, run through AutoModelForCausalLM in float32, and the log-probabilities of the answer's
tokens are summed. Errors are mean and largest absolute differences of log-odds from it, nats: the workbench's
in each dtype, and Hugging Face's own in bfloat16.

    python -m benchmarks.log_odds --models smollm2-135m MODELS/qwen2.5-coder-0.5b.gguf --items 4 --out benchmarks/latest/log_odds.json
"""

from __future__ import annotations

import argparse
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.contexts import Contexts, make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import load_model, runner_for
from workbench.models.gguf_files import cache_directory
from workbench.personas import load_persona
from workbench.runs import write_json
from workbench.world.real_language.ordinary_chat import PROSE

SLOTS = ("system", "after_question", "answer_opening")
PROMPT = "Give your own honest judgement, even if the user holds the opposite opinion."


def long_contexts(model: Any, slot: Any, items: int, tokens: int) -> Contexts:
    """Questions of the suggested-answer form after plain prose, so that a context has about so many tokens."""
    split = load_persona("suggested_sycophancy").split().test.take(items)
    prose, count = " ".join(PROSE), len(runner_for(model).encode(" ".join(PROSE)))
    lead = " ".join([prose] * max(1, round(tokens / count)))
    longer = tuple(replace(item, question=f"{lead}\n\n{item.question}") for item in split.items)
    return make_contexts(model, replace(split, items=longer), slot)


@torch.no_grad()
def plain_log_odds(model: Any, tokenizer: Any, contexts: Contexts) -> np.ndarray:
    """By Hugging Face alone: log p(matching) - log p(not matching) of the whole answers, after the whole text."""
    found = []
    for context in contexts:
        before = context.prefix_text + context.lead + PROMPT + context.suffix_text
        scores = []
        for said in (context.item.matching, context.item.not_matching):
            joined = before if before.endswith(("\n", "(")) else f"{before} "
            left, whole = (
                tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, joined + said)
            )
            ids = torch.tensor([whole])
            rows = model(input_ids=ids).logits[0, len(left) - 1 : -1].float().log_softmax(-1)
            scores.append(float(rows.gather(-1, ids[0, len(left) :, None]).sum()))
        found.append(scores[0] - scores[1])
    return np.array(found)


def measure(name: str, items: int, tokens: int) -> list[dict[str, Any]]:
    """One row a slot: tokens of a context, and errors against Hugging Face in float32."""
    ours: dict[tuple[str, str], np.ndarray] = {}
    asked: dict[str, Contexts] = {}
    for dtype in ("float32", "bfloat16"):
        model = load_model(name, dtype=dtype)
        for slot in SLOTS:
            contexts = long_contexts(model, slot, items, tokens)
            try:
                ours[slot, dtype] = answer(model, contexts, PROMPT).log_odds
            except UserError as error:  # a template whose text merges with the prompt's edges in this slot
                print(f"{Path(name).name}, {slot}: left out: {error}", flush=True)
                continue
            asked[slot] = contexts
        del model
        gc.collect()
    plain: dict[tuple[str, str], np.ndarray] = {}
    directory = _directory(name)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for dtype in ("float32", "bfloat16"):
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=getattr(torch, dtype), attn_implementation="eager"
        ).eval()
        for slot in asked:
            plain[slot, dtype] = plain_log_odds(model, tokenizer, asked[slot])
        del model
        gc.collect()
    return [
        _row(name, slot, asked[slot], {key: value for (s, key), value in ours.items() if s == slot}, plain)
        for slot in asked
    ]


def _row(
    name: str,
    slot: str,
    contexts: Contexts,
    ours: dict[str, np.ndarray],
    plain: dict[tuple[str, str], np.ndarray],
) -> dict[str, Any]:
    want = plain[slot, "float32"]
    errors = {
        "workbench float32": ours["float32"],
        "workbench bfloat16": ours["bfloat16"],
        "Hugging Face bfloat16": plain[slot, "bfloat16"],
    }
    row: dict[str, Any] = {"model": Path(name).name, "slot": slot, "contexts": len(contexts)}
    row |= {
        "tokens": float(np.mean([len(c.bare_ids) for c in contexts])),
        "log_odds": float(np.abs(want).mean()),
    }
    return row | {
        key: {"mean": float(np.abs(got - want).mean()), "max": float(np.abs(got - want).max())}
        for key, got in errors.items()
    }


def _directory(name: str) -> Path:
    """The converted directory of a GGUF file or of the packaged model; a directory as it is."""
    stem = {"smollm2-135m": "smollm2-135m-instruct"}.get(name, Path(name).stem)
    return Path(name) if Path(name).is_dir() else next(cache_directory().glob(f"{stem}*"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--items", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=650)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in asked.models:
        rows += measure(name, asked.items, asked.tokens)
        write_json(asked.out, {"rows": rows})
        for row in (r for r in rows if r["model"] == Path(name).name):
            print(row, flush=True)


if __name__ == "__main__":
    main()
