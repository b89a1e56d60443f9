"""Count the weights that a study loads apart from its model: an SAE and the model that judges fluency.

An SAE of the paper's models has more than a billion weights, which are kept in float32: 4.3 GB next to a model of
16 GB. A plan that leaves them out says of an 8B model that it fits on a card on which it does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from safetensors import SafetensorError, safe_open

from workbench.errors import UserError
from workbench.models.loading import choose_dtype
from workbench.models.model_sizes import model_sizes_of
from workbench.models.model_sources import base_of
from workbench.sae.sae_loading import find_sae
from workbench.study.study_settings import Study

#: Latents of an SAE of a release whose ids do not state it (SAELens 6.21 and the releases' configs).
_WIDTHS = {"llama-3.1-8b-instruct-andyrdt": 131_072, "qwen2.5-7b-instruct-andyrdt": 131_072}
#: Widths as ids of Gemma Scope write them: "width_16k" is 2 ** 14.
_NAMED_WIDTHS = {
    "16k": 2**14,
    "32k": 2**15,
    "65k": 2**16,
    "131k": 2**17,
    "262k": 2**18,
    "524k": 2**19,
    "1m": 2**20,
}


@dataclass(frozen=True)
class OtherWeights:
    """Weights that a study loads apart from its model.

    Attributes:
        name: What they are, in words.
        numbers: How many weights; None if that cannot be known without loading them.
        dtype: Their data type; None for that of the model.
        from_stage: Name of the first stage in which they are in memory; None for all stages.
    """

    name: str
    numbers: int | None
    dtype: str | None = None
    from_stage: str | None = None

    def bytes(self, dtype: str) -> int:
        """Return the memory of the weights in bytes, 0 if their number is not known.

        Args:
            dtype: Data type of the model.
        """
        return (self.numbers or 0) * choose_dtype(self.dtype or dtype).itemsize


def other_weights(study: Study, d_model: int) -> tuple[OtherWeights, ...]:
    """Return the weights that a study loads apart from its model; nothing is loaded.

    Args:
        study: Settings of the study.
        d_model: Width of the model's residual stream.
    """
    found = []
    if study.sae != "none" and not (study.sae == "auto" and study.model.name != "organism"):
        name = "organism" if study.sae == "auto" else study.sae
        found.append(OtherWeights(f"SAE {name}", _sae_numbers(name, d_model), "float32"))
    wanted = study.search.judge
    judge = base_of(study.model.name) if wanted == "auto" else wanted
    if judge not in (None, "none"):
        found.append(OtherWeights(f"judge {judge}", _model_numbers(str(judge)), from_stage="comparison"))
    return tuple(found)


def _sae_numbers(name: str, d_model: int) -> int | None:
    """Return the number of weights of an SAE, from its files or from the width that its release is known to have."""
    try:
        place = find_sae(name)
    except UserError:
        return None
    if place.directory is None:
        width = _WIDTHS.get(place.release) or _width_in(place.sae_id)
        return None if width is None else 2 * width * d_model + width + d_model
    try:
        return sum(_numbers_in(str(file)) for file in sorted(place.directory.glob("*.safetensors"))) or None
    except (OSError, SafetensorError):
        return None


def _width_in(sae_id: str) -> int | None:
    named = re.search(r"width_(\d+[km])(?![a-z0-9])", sae_id)
    return _NAMED_WIDTHS.get(named[1]) if named else None


def _numbers_in(file: str) -> int:
    with safe_open(file, framework="numpy") as tensors:
        shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
    total = 0
    for shape in shapes:
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def _model_numbers(name: str) -> int | None:
    try:
        return model_sizes_of(name).parameters
    except UserError:
        return None
