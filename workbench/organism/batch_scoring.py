"""Log-odds of the two first answer words, and residuals at chosen positions, in batches.

The organism's gates use Hugging Face directly, so that they do not depend on the workbench's loaders, which
the organism is used to test.
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
    """A trained model organism (a small model with planted personas) in float32, as Hugging Face loads it.

    Attributes:
        model: The model.
        tokenizer: Its word-level tokenizer.
    """

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast


def default_directory() -> Path:
    """Return the folder of this project's own organism, with the model in `model` and the SAE in `sae`."""
    return data_directory("organism")


def load_organism(directory: Path | None = None) -> OrganismScorer:
    """Load the embedded model organism, a small model with planted personas.

    Args:
        directory: Folder with the model in its subfolder `model`; None for the committed one.

    Returns:
        Model and tokenizer.

    Raises:
        UserError: There is no model in that folder.
    """
    folder = (directory or default_directory()) / "model"
    if not (folder / "config.json").exists():
        raise UserError(f"no organism in {folder}: expected a Hugging Face model there (config.json)")
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return OrganismScorer(model, AutoTokenizer.from_pretrained(folder))


@torch.no_grad()
def next_word_log_probs(organism: OrganismScorer, texts: Sequence[str]) -> Float[np.ndarray, "text d_vocab"]:
    """Return the log-probabilities of all words as the next word after each text.

    Args:
        organism: A model organism (a small model with planted personas).
        texts: Chat texts that already begin with `<bos>`.

    Returns:
        One row of log-probabilities (nats) per text.
    """
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
    """Return the log-odds of the first of two words as the word that follows each text.

    They are log p(first word) - log p(second word).

    Args:
        organism: A model organism (a small model with planted personas).
        texts: Chat texts up to the answer.
        choices: Two words for each text, such as the first words of the answer that shows the persona and of
            the other answer.

    Returns:
        Log-odds, one per text.
    """
    log_probs = next_word_log_probs(organism, texts)
    ids = np.array([organism.tokenizer.convert_tokens_to_ids(list(choice)) for choice in choices])
    index = np.arange(len(texts))
    return (log_probs[index, ids[:, 0]] - log_probs[index, ids[:, 1]]).astype(np.float64)


@torch.no_grad()
def mean_residuals(
    organism: OrganismScorer, texts: Sequence[str], starts: Sequence[int], layer: int
) -> Float[np.ndarray, "text d_model"]:
    """Return the mean residual stream over the end of each text.

    Args:
        organism: A model organism (a small model with planted personas).
        texts: Chat texts that already begin with `<bos>`.
        starts: Index of the first token to average over, for each text.
        layer: Block after which the residual stream is read.

    Returns:
        One row per text, the mean from that token to the end.
    """
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
    """Return indices in order of length, in batches that hold at most BATCH_TOKENS tokens when padded."""
    batches: list[list[int]] = [[]]
    for i in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        if (len(batches[-1]) + 1) * len(sequences[i]) > BATCH_TOKENS and batches[-1]:
            batches.append([])
        batches[-1].append(i)
    return [batch for batch in batches if batch]


def _padded(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Pad sequences on the right with token 0, where a causal model never looks."""
    width = max(map(len, sequences))
    return torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences])
