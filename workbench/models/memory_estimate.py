"""How much memory a model needs, stage by stage, as arithmetic from its sizes.

Everything is counted in bytes. b = bytes of one number of the model's dtype; attention scores are counted in the model's
dtype, log-probabilities and projections in float32 (4 bytes). One block is alive at a time without gradients; with
gradients every block of the stretch keeps its inputs.

1. weights: parameters x b.
2. keys and values of one token: 2 x layers x kv heads x head size x b.
3. a pass without gradients over `sequences` of `length` tokens, in numbers: a token of one block has 4 d_model, 2 d_mlp and
   queries, keys, values twice; a sequence 3 heads x length^2 for scores, mask and pattern.
4. logits of one position: d_vocab x (b + 4), in the model's dtype and in float32.
5. a gradient to the residual at the bottom, in numbers, for every block: as the third, but 4 d_mlp a token and 7 heads x
   length^2 a sequence.

Fitted to and checked against the growth of the process on SmolLM2-135M, float32, one thread: a pass over 8 x 128 tokens
took 0.047 GB (0.042 here), 4 x 64 took 0.008 (0.009); the gradient 2.16 GB (2.19 here) and 0.42 (0.43).
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.models.runner import ModelShape


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by stage. weights: resident; kv_per_token: a token of a cached prefix, all blocks; logits_per_position: one
    unembedded position; forward, gradient: working memory of a pass over `sequences` x `length` tokens."""

    weights: int
    kv_per_token: int
    logits_per_position: int
    forward: int
    gradient: int
    sequences: int
    length: int

    def rows(self) -> dict[str, int]:
        """Stage -> bytes at its peak, weights included."""
        tokens = self.sequences * self.length
        return {
            "load": self.weights,
            "collect activations": self.weights + self.forward,
            "forced-choice answers": self.weights + self.forward + self.sequences * self.logits_per_position,
            "score candidates behind a cached prefix": self.weights + self.forward + tokens * self.kv_per_token,
            "gradient of an objective": self.weights + self.gradient + self.sequences * self.logits_per_position,
        }


def memory_needed(shape: ModelShape, parameters: int, bytes_per_number: int, sequences: int = 16, length: int = 128) -> MemoryEstimate:
    """The arithmetic of the module's docstring for a model of these sizes. parameters: all weights, tied ones once."""
    attention = shape.d_model * shape.d_head * 2 * (shape.n_heads + shape.n_kv_heads)
    d_mlp = max(0, shape.block_parameters - attention) // (3 * shape.d_model)
    tokens, scores = sequences * length, sequences * shape.n_heads * length**2
    residuals = 4 * shape.d_model + 2 * shape.d_head * (shape.n_heads + shape.n_kv_heads)
    forward = tokens * (residuals + 2 * d_mlp) + 3 * scores
    gradient = shape.n_layers * (tokens * (residuals + 4 * d_mlp) + 7 * scores)
    return MemoryEstimate(
        weights=parameters * bytes_per_number,
        kv_per_token=2 * shape.n_layers * shape.n_kv_heads * shape.d_head * bytes_per_number,
        logits_per_position=shape.d_vocab * (bytes_per_number + 4),
        forward=forward * bytes_per_number,
        gradient=gradient * bytes_per_number,
        sequences=sequences,
        length=length,
    )
