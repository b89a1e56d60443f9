"""BibTeX entries of what a run used; `methods_text` decides which ones are cited."""

from __future__ import annotations

from collections.abc import Iterable

ENTRIES = {
    "resga": (
        "@misc{resga,\n  title = {Bridging Mechanistic Interpretability and Prompt Engineering with Gradient Ascent for Interpretable Persona "
        "Control},\n  year = {2026},\n  eprint = {2601.02896},\n  archivePrefix = {arXiv}\n}"
    ),
    "persona_workbench": (
        "@software{persona_workbench,\n  title = {persona workbench},\n  author = {{The persona workbench developers}},\n"
        "  version = {VERSION},\n  license = {MIT}\n}"
    ),
    "transformer_lens": (
        "@misc{transformer_lens,\n  title = {TransformerLens},\n  author = {Neel Nanda and Joseph Bloom},\n  year = {2022},\n"
        "  howpublished = {\\url{https://github.com/TransformerLensOrg/TransformerLens}}\n}"
    ),
    "epo": (
        "@misc{epo,\n  title = {Fluent dreaming for language models},\n  author = {T. Ben Thompson and Zygimantas Straznickas and Michael Sklar},\n"
        "  year = {2024},\n  eprint = {2402.01702},\n  archivePrefix = {arXiv}\n}"
    ),
    "gcg": (
        "@misc{gcg,\n  title = {Universal and Transferable Adversarial Attacks on Aligned Language Models},\n  author = {Andy Zou and Zifan Wang "
        "and Nicholas Carlini and Milad Nasr and J. Zico Kolter and Matt Fredrikson},\n  year = {2023},\n  eprint = {2307.15043},\n"
        "  archivePrefix = {arXiv}\n}"
    ),
    "caa": (
        "@misc{caa,\n  title = {Steering Llama 2 via Contrastive Activation Addition},\n  author = {Nina Rimsky and Nick Gabrieli and Julian Schulz "
        "and Meg Tong and Evan Hubinger and Alexander Matt Turner},\n  year = {2023},\n  eprint = {2312.06681},\n  archivePrefix = {arXiv}\n}"
    ),
    "sae_lens": (
        "@misc{sae_lens,\n  title = {SAELens},\n  author = {Joseph Bloom and Curt Tigges and Anthony Duong and David Chanin},\n  year = {2024},\n"
        "  howpublished = {\\url{https://github.com/jbloomAus/SAELens}}\n}"
    ),
    "cr2": (
        "@article{cr2,\n  title = {Bias reduction in standard errors for linear regression with multi-stage samples},\n  author = {Robert M. Bell "
        "and Daniel F. McCaffrey},\n  journal = {Survey Methodology},\n  volume = {28},\n  number = {2},\n  pages = {169--181},\n  year = {2002}\n}"
    ),
    "holm": (
        "@article{holm,\n  title = {A simple sequentially rejective multiple test procedure},\n  author = {Sture Holm},\n  journal = {Scandinavian "
        "Journal of Statistics},\n  volume = {6},\n  number = {2},\n  pages = {65--70},\n  year = {1979}\n}"
    ),
}


def bibliography(keys: Iterable[str], version: str) -> str:
    """Return BibTeX entries for the given citation keys.

    Args:
        keys: Citation keys, each one of ENTRIES; the result has their order in ENTRIES.
        version: Version of this package, for its own entry.
    """
    wanted = set(keys)
    return (
        "\n\n".join(entry.replace("VERSION", version) for key, entry in ENTRIES.items() if key in wanted)
        + "\n"
    )
