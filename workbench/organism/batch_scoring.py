"""Log-odds of the two first answer words, and residuals at chosen positions, in batches through Hugging Face's model.

The organism's gates use Hugging Face directly, so that they do not depend on the loaders that they are a test
bed for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.errors import UserError
from workbench.models.model_sources import data_directory

BATCH_TOKENS = 6000


@dataclass(frozen=True)
class OrganismScorer:
    """A trained organism in float32 with its tokenizer, as Hugging Face loads them."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast


def default_directory() -> Path:
    """The folder of the organism that this project ships; the model is in its subfolder `model`, the SAE in `sae`."""
    return data_directory("organism")


def load_organism(directory: Path | None = None) -> OrganismScorer:
    """Load the model in `directory`/model (default: the committed one); UserError where there is none."""
    folder = (directory or default_directory()) / "model"
    if not (folder / "config.json").exists():
        raise UserError(f"no organism in {folder}: expected a Hugging Face model there (config.json)")
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return OrganismScorer(model, AutoTokenizer.from_pretrained(folder))


@torch.no_grad()
def next_word_log_probs(organism: OrganismScorer, texts: Sequence[str]) -> Float[np.ndarray, "text d_vocab"]:
    """Log-probabilities of the word that follows each text (chat texts that hold their own bos)."""
    sequences = [organism.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    rows = np.zeros((len(texts), organism.model.config.vocab_size), dtype=np.float32)
    for batch in _batches(sequences):
        ids = _padded([sequences[i] for i in batch])
        last = torch.tensor([len(sequences[i]) - 1 for i in batch])
        hidden = organism.model.model(input_ids=ids, use_cache=False).last_hidden_state
        rows[batch] = organism.model.lm_head(hidden[torch.arange(len(batch)), last]).log_softmax(-1).numpy()
    return rows


def log_odds(
    organism: OrganismScorer, texts: Sequence[str], choices: Sequence[tuple[str, str]]
) -> Float[np.ndarray, " text"]:
    """Log p(first word of the choice) - log p(second) after each text; the first is the matching one."""
    log_probs = next_word_log_probs(organism, texts)
    ids = np.array([organism.tokenizer.convert_tokens_to_ids(list(choice)) for choice in choices])
    index = np.arange(len(texts))
    return (log_probs[index, ids[:, 0]] - log_probs[index, ids[:, 1]]).astype(np.float64)


@torch.no_grad()
def mean_residuals(
    organism: OrganismScorer, texts: Sequence[str], starts: Sequence[int], layer: int
) -> Float[np.ndarray, "text d_model"]:
    """Residual after block `layer`, averaged from token `starts[i]` to the end of text i."""
    sequences = [organism.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    rows = np.zeros((len(texts), organism.model.config.hidden_size), dtype=np.float64)
    for batch in _batches(sequences):
        ids = _padded([sequences[i] for i in batch])
        hidden = organism.model.model(
            input_ids=ids, use_cache=False, output_hidden_states=True
        ).hidden_states[layer + 1]
        for row, i in enumerate(batch):
            rows[i] = hidden[row, starts[i] : len(sequences[i])].mean(0).double().numpy()
    return rows


def _batches(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices in order of length, cut so that no padded batch holds more than BATCH_TOKENS tokens."""
    batches: list[list[int]] = [[]]
    for i in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        if (len(batches[-1]) + 1) * len(sequences[i]) > BATCH_TOKENS and batches[-1]:
            batches.append([])
        batches[-1].append(i)
    return [batch for batch in batches if batch]


def _padded(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Right padding: a causal model never looks at it."""
    width = max(map(len, sequences))
    return torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences])
