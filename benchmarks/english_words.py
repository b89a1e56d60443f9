"""Makes data/words/english.txt: which one-token pieces of SmolLM2's vocabulary are whole English words.

1. Candidates: tokens of a space and at least two lower-case letters (and "a", "i").
2. After each of PREFIXES and the candidate, the model's probability that the next token begins something new
   (a space, a line break, punctuation, the end): a fragment such as " hon" is continued, a word is not.
3. Words: candidates with a mean probability of at least LEAST and a vowel, and FUNCTION_WORDS, which no such
   prefix fits.

Run: python -m benchmarks.english_words
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from workbench.models import load_model, runner_for
from workbench.models.token_text import token_texts

PREFIXES = ("They told us that the", "You should always be very")
LEAST = 0.5
FUNCTION_WORDS = frozenset(
    """
    a about above across after again against all almost along also although always am among an and another any anyone anything are
    around as at away back be because been before behind being below between both but by can cannot could did do does done down during
    each either else enough even ever every everyone everything few for from get give go had has have he her here hers him his how i
    if in into is it its just keep know less let like make many may me might mine more most much must my never no nobody none nor not
    nothing now of off often on once one only or other our ours out over own quite rather same say see seem shall she should since so
    some someone something sometimes soon still such take tell than that the their theirs them then there these they thing things
    think this those though through to together too toward under unless until up upon us very want was we well were what when where
    whether which while who whose why will with within without would yes yet you your yours
    """.split()  # noqa: SIM905
)
OUT = Path("data/words/english.txt")


@torch.no_grad()
def main() -> None:
    """Writes the list."""
    runner = runner_for(load_model("smollm2-135m"))
    texts = token_texts(runner.tokenizer, [[i] for i in range(len(runner.tokenizer))])
    candidates = torch.tensor([i for i, text in enumerate(texts) if re.fullmatch(r" ([a-z]{2,}|a|i)", text)])
    begins = torch.tensor([not text[:1].isalnum() and text[:1] not in "'\u2019-_" for text in texts])
    begins = torch.nn.functional.pad(begins, (0, runner.shape.d_vocab - len(begins)))
    share = torch.zeros(len(candidates))
    for prefix in PREFIXES:
        ids = torch.tensor([runner.encode(prefix)])
        _, kv = runner.run(runner.embed(ids), 0, runner.shape.n_layers, keep=True)
        for start in range(0, len(candidates), 256):
            some = candidates[start : start + 256]
            forked = kv.fork(torch.zeros(len(some), dtype=torch.long))
            resid, _ = runner.run(
                runner.embed(some[:, None], offset=ids.shape[1]), 0, runner.shape.n_layers, forked
            )
            share[start : start + 256] += runner.logits(resid[:, 0]).softmax(-1)[:, begins].sum(-1) / len(
                PREFIXES
            )
    found = {texts[int(i)].strip() for i, s in zip(candidates, share, strict=True) if s >= LEAST}
    words = sorted({word for word in found if re.search("[aeiouy]", word)} | FUNCTION_WORDS)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(words) + "\n", encoding="utf-8")
    print(
        f"{len(words)} of {len(candidates)} candidates are words; left out, for example: "
        f"{', '.join(texts[int(i)].strip() for i, s in zip(candidates, share, strict=True) if s < LEAST)[:400]}"
    )


if __name__ == "__main__":
    main()
