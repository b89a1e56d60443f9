"""How much memory a model needs, stage by stage, as arithmetic from its sizes.

Everything is counted in bytes. b = bytes of one number of the model's dtype; d, q, k, m = numbers of a token
in the residual stream, in its queries, in its keys (as many in its values), in the MLP. One block is alive at
a time without gradients; with gradients every block keeps what its derivative needs. Of a HookedTransformer
(`hooked_block.py`):

1. weights: parameters x b; HookedTransformer holds Gemma's tied embedding twice, scaled and not
   (`second_embedding`).
2. keys and values of one token: 2 x layers x k x b.
3. a pass without gradients, a token: the larger of the MLP's phase, 5 d + 2 k + 2 m, and attention's, 3 d + 4
   q + 4 k; after a cache attention has its scores instead of fused kernels, and the row's own keys are
   gathered and joined: 3 d + 3 q + 8 k + 3 heads x length.
4. a gradient, a token of every block: 3 m + 2 d + 2 q + 2 k, and after a cache heads x length for the
   pattern; and one block's own 2 m + 4 d.
5. logits of one position: d_vocab x (b + 4), in the model's dtype and in float32; at most 2 x
   `vocabulary_chunks.CHUNK` float32 numbers.
6. the process on a CPU: 0.57 GB for the program and its libraries, and 1.6 kB a token for the tokenizer
   (`process_memory`); a GPU's memory holds none of it.
7. loading on a CPU: where the weights file has another dtype than the model, it is mapped while the model is
   filled (`mapped_file`); its pages count in the process's peak, and the system can take them back.

Checked against what torch allocates on a model of 16 wide blocks (`tests/models/test_memory_estimate.py`) and
against the peak of the process on real models (docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.models.runner import ModelShape
from workbench.models.vocabulary_chunks import CHUNK

#: Tokens of a batch without gradients unless said otherwise; a batch with gradients has a quarter.
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class LargestBatch:
    """The most that is run at a time.

    sequences x length: tokens without gradients. gradient_sequences: with gradients, through
    `gradient_blocks` blocks (None: all). cached: tokens whose keys and values are kept meanwhile (None: all
    of the batch). positions: unembedded at a time (None: one a sequence).
    """

    sequences: float = BATCH_TOKENS // 128
    length: float = 128
    gradient_sequences: float = BATCH_TOKENS // 4 // 128
    gradient_blocks: float | None = None
    cached: float | None = None
    positions: float | None = None


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by stage.

    weights: resident; process: of the program, where weights and program share one memory; kv_per_token: a
    token of a cached prefix, all blocks; logits_per_position: one unembedded position; forward, after_cache:
    working memory of a pass over the batch; gradient: of a gradient; file: of weights files that are mapped
    while a model is loaded.
    """

    weights: int
    kv_per_token: int
    logits_per_position: int
    forward: int
    after_cache: int
    gradient: int
    batch: LargestBatch
    process: int = 0
    file: int = 0

    def rows(self) -> dict[str, int]:
        """Stage -> bytes at its peak, weights included."""
        batch, held = self.batch, self.weights + self.process
        positions = batch.sequences if batch.positions is None else batch.positions
        logits = int(min(positions * self.logits_per_position, 8 * CHUNK))
        caches = int(
            (batch.sequences * batch.length if batch.cached is None else batch.cached) * self.kv_per_token
        )
        working = {
            "load": self.file,
            "collect activations": self.forward,
            "forced-choice answers": self.forward + logits,
            "score candidates after a cached prefix": self.after_cache + caches + logits,
            "gradient of an objective": max(self.gradient, self.after_cache)
            + (0 if batch.cached is None else caches)
            + logits,
        }
        return {stage: held + size for stage, size in working.items()}


def second_embedding(shape: ModelShape, architecture: str, backend: str) -> int:
    """Numbers of the embedding that HookedTransformer holds in addition to a tied unembedding: Gemma's, which it scales by sqrt(d_model)."""
    return (
        shape.d_vocab * shape.d_model
        if shape.tied and backend != "bridge" and architecture.startswith("Gemma")
        else 0
    )


def process_memory(d_vocab: int, device: str = "cpu") -> int:
    """Bytes of the program itself, with a tokenizer of this size; 0 where weights are in another memory than the program.

    Measured: 0.57 GB after the imports; Gemma's tokenizer (262k tokens) 0.41 GB more.
    """
    return int(0.57e9 + 1600 * d_vocab) if device == "cpu" else 0


def mapped_file(size: int, parameters: int, bytes_per_number: int) -> int:
    """Bytes of the weights files that are mapped in addition to the model while it is loaded: all, or 0 where they have the model's dtype.

    Args:
        size: Bytes of the files.
        parameters: Numbers in them.
        bytes_per_number: Of the model's dtype.
    """
    return 0 if round(size / parameters) == bytes_per_number else size


def memory_needed(
    shape: ModelShape,
    parameters: int,
    bytes_per_number: int,
    batch: LargestBatch | None = None,
    process: int = 0,
    file: int = 0,
) -> MemoryEstimate:
    """The arithmetic of the module's docstring for a model of these sizes.

    parameters: all weights that are held, tied ones once. process: bytes of the program where it shares the
    memory; file: bytes of the weights files there.
    """
    batch = batch or LargestBatch()
    d, q, k = shape.d_model, shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
    m = max(0, shape.block_parameters - 2 * d * (q + k)) // (3 * d)
    mlp, scores = 5 * d + 2 * k + 2 * m, shape.n_heads * batch.length
    forward = max(mlp, 3 * d + 4 * q + 4 * k)
    after_cache = max(mlp + 4 * k, 3 * d + 3 * q + 8 * k + 3 * scores)
    blocks = shape.n_layers if batch.gradient_blocks is None else batch.gradient_blocks
    gradient = (
        blocks * (3 * m + 2 * d + 2 * q + 2 * k + (0 if batch.cached is None else scores)) + 2 * m + 4 * d
    )
    size = lambda sequences, numbers: int(sequences * batch.length * numbers * bytes_per_number)  # noqa: E731
    return MemoryEstimate(
        weights=parameters * bytes_per_number,
        kv_per_token=2 * shape.n_layers * k * bytes_per_number,
        logits_per_position=shape.d_vocab * (bytes_per_number + 4),
        forward=size(batch.sequences, forward),
        after_cache=size(batch.sequences, after_cache),
        gradient=size(batch.gradient_sequences, gradient),
        batch=batch,
        process=process,
        file=file,
    )
