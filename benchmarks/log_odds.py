"""Log-odds against plain Hugging Face: real models, float32 and bfloat16, about 700 tokens, three slots.

The reference knows nothing of the workbench: the whole text of question, prompt and answer is tokenized by
the model's tokenizer, run through AutoModelForCausalLM in float32, and the log-probabilities of the answer's
tokens are summed. Errors are mean and largest absolute differences of log-odds from it, nats: the workbench's
in each dtype, and Hugging Face's own in bfloat16. With a run, its found prompt is scored instead of a written one, and
the reading of its direction at the last token before the answer is compared too: the projection of the residual
stream on the unit vector. Readings and their largest errors are fractions of the residual stream's norm. Rows of
other models in the file remain.

    python -m benchmarks.log_odds --models smollm2-135m MODELS/qwen2.5-coder-0.5b.gguf --items 4 --out benchmarks/latest/log_odds.json
    python -m benchmarks.log_odds --models MODEL --run RUN --items 2 --out benchmarks/latest/log_odds_found.json
"""

from __future__ import annotations

import argparse
import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.contexts import Contexts, make_contexts
from workbench.directions import Direction, load_directions
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import load_model, runner_for
from workbench.models.gguf_files import cache_directory
from workbench.personas import load_persona
from workbench.prompt_tokens import encode_prompt
from workbench.runs import read_json, write_json
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


@dataclass(frozen=True)
class Asked:
    """The prompt whose log-odds are compared, and the direction whose readings are, if any."""

    prompt: str = PROMPT
    direction: Direction | None = None

    @classmethod
    def of_run(cls, run: Path) -> Asked:
        """The prompt that a run's search along the direction found, and its direction."""
        conditions = read_json(run / "comparison.json")["conditions"]
        return cls(
            next(c["prompt"] for c in conditions if c["kind"] == "resga"),
            load_directions(run / "direction.safetensors")[0],
        )


def readings(model: Any, contexts: Contexts, asked: Asked) -> np.ndarray:
    """Projection on the direction at the last token before the answer, one per context."""
    assert asked.direction is not None
    runner, direction = runner_for(model), asked.direction
    ids = encode_prompt(runner, contexts, asked.prompt)
    found = []
    for context in contexts:
        row = torch.tensor([context.ids(ids)])
        states = runner.read(row, [direction.site], torch.tensor([row.shape[1] - 1]))[direction.site]
        found.append(float(states[0] @ direction.vector / direction.vector.norm()))
    return np.array(found)


@torch.no_grad()
def plain_readings(model: Any, tokenizer: Any, contexts: Contexts, asked: Asked) -> tuple[np.ndarray, float]:
    """By Hugging Face alone: the same projection, and the mean norm of the residual stream there."""
    assert asked.direction is not None
    found, norms, unit = [], [], asked.direction.vector / asked.direction.vector.norm()
    for context in contexts:
        ids = tokenizer(context.around(asked.prompt), add_special_tokens=False, return_tensors="pt")[
            "input_ids"
        ]
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[asked.direction.site.layer + 1]
        found.append(float(states[0, -1].float() @ unit))
        norms.append(float(states[0, -1].float().norm()))
    return np.array(found), float(np.mean(norms))


@torch.no_grad()
def plain_log_odds(model: Any, tokenizer: Any, contexts: Contexts, prompt: str = PROMPT) -> np.ndarray:
    """By Hugging Face alone: log p(matching) - log p(not matching) of the whole answers, after the whole text."""
    found = []
    for context in contexts:
        before = context.around(prompt)
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


def measure(name: str, items: int, tokens: int, what: Asked) -> list[dict[str, Any]]:
    """One row a slot: tokens of a context, and errors against Hugging Face in float32."""
    ours: dict[tuple[str, str], np.ndarray] = {}
    asked: dict[str, Contexts] = {}
    read: dict[tuple[str, str], np.ndarray] = {}
    for dtype in ("float32", "bfloat16"):
        model = load_model(name, dtype=dtype)
        for slot in SLOTS:
            contexts = long_contexts(model, slot, items, tokens)
            try:
                ours[slot, dtype] = answer(model, contexts, what.prompt).log_odds
                if what.direction is not None:
                    read[slot, dtype] = readings(model, contexts, what)
            except UserError as error:  # a template whose text merges with the prompt's edges in this slot
                print(f"{Path(name).name}, {slot}: left out: {error}", flush=True)
                continue
            asked[slot] = contexts
        del model
        gc.collect()
    plain: dict[tuple[str, str], np.ndarray] = {}
    plain_read: dict[str, tuple[np.ndarray, float]] = {}
    directory = _directory(name)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for dtype in ("float32", "bfloat16"):
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=getattr(torch, dtype), attn_implementation="eager"
        ).eval()
        for slot in asked:
            plain[slot, dtype] = plain_log_odds(model, tokenizer, asked[slot], what.prompt)
            if what.direction is not None and dtype == "float32":
                plain_read[slot] = plain_readings(model, tokenizer, asked[slot], what)
        del model
        gc.collect()
    rows = [
        _row(name, slot, asked[slot], {key: value for (s, key), value in ours.items() if s == slot}, plain)
        for slot in asked
    ]
    for row in rows if what.direction is not None else ():
        want, norm = plain_read[row["slot"]]
        row["prompt"], row["reading"] = what.prompt, float(np.abs(want).mean() / norm)
        for dtype in ("float32", "bfloat16"):
            row[f"reading {dtype}"] = float(np.abs(read[row["slot"], dtype] - want).max() / norm)
    return rows


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
    parser.add_argument("--run", type=Path, help="a run whose found prompt and direction are compared")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    names = {Path(name).name for name in asked.models}
    before = read_json(asked.out)["rows"] if asked.out.is_file() else []
    rows: list[dict[str, Any]] = [row for row in before if row["model"] not in names]
    what = Asked() if asked.run is None else Asked.of_run(asked.run)
    for name in asked.models:
        rows += measure(name, asked.items, asked.tokens, what)
        write_json(asked.out, {"rows": rows})
        for row in (r for r in rows if r["model"] == Path(name).name):
            print(row, flush=True)


if __name__ == "__main__":
    main()
