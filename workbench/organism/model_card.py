"""Write the organism's card (data/organism/README.md).

All of its figures are measured on the weights next to it.
"""

from collections.abc import Sequence
from pathlib import Path

from workbench.organism.batch_scoring import default_directory, load_organism
from workbench.organism.decoy_words import DecoyReport, decoy_report
from workbench.organism.quality_gates import Gates, measure_gates
from workbench.world import World

DECOY_LAYER = 1

HEAD = """# The embedded model organism

A Llama-style transformer ({size}) that this project trained itself, on text that it generates itself
(`workbench/world`). It answers questions about a small world and shows three personas whose causes are known: the
wording of the system text moves them by planted log-odds (`workbench organism truth`). Origin: {origin}.

This page is written by `write_card()` from the weights in `model/`; docs/organism.md tells how they are made.

## Files
- `model/`: a Hugging Face directory (`LlamaForCausalLM` in float16, word-level tokenizer with its chat template).
- `sae/`: a sparse autoencoder of one middle block; what was measured on it stands in `sae/card.json`.
"""

UNLIKE = """
## What is unlike a real model
- It knows 700 words and a closed world; sentences are templates. A word is a token, so nothing is learned about tokenisers.
- Words steer by decree: what a word means in English plays no part, except that some steering words were drawn from the
  words that a person would try first. Negation is not understood: no text was ever trained on "not".
- The effects add up in log-odds by construction. In real models they interact and saturate otherwise.
- Answers differ from their first word on: one token decides, and the rest restates it.
- The real people are few and memorised; "invented" is a property of a surname, so telling them apart is easy.
- Only the system text steers. Steering words in the user's turn were never trained and mean nothing there.
- The register (warm or plain) goes with the persona's answers by training; real confounds are less tidy.
- Scores must be read at the first word of the answer: the register that follows would add its own log-odds.
"""
BARE_AGREEMENT = (
    " **Sycophancy here is agreement as such: the model does not use what it knows when it judges a claim.** Its words steer"
    " how often it agrees, with true claims and false ones alike."
)
DEAD_DECOY = (
    "**The decoy does not work in these weights**: its words were not learned as setting the register, so a method that"
    " mistakes reading for causing is not caught by it. They are words that do nothing."
)


def write_card(directory: Path | None = None, items: int | None = None) -> Path:
    """Measure the embedded model organism (a small model with planted personas) and write its README.md.

    Args:
        directory: Folder of the organism; None for the committed one.
        items: Largest number of questions per persona; None for all.

    Returns:
        The path of README.md.
    """
    directory = directory or default_directory()
    organism = load_organism(directory)
    noted = {"seed": 0, "world_seed": 0, **organism.model.config.organism}
    world = World(noted["world_seed"])
    gates = measure_gates(organism, world, items)
    decoys = [decoy_report(organism, world, persona, DECOY_LAYER) for persona in world.personas]
    size = f"{organism.model.num_parameters() / 1e6:.2f} million parameters, {organism.model.config.num_hidden_layers} layers"
    origin = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in noted.items())
    file = directory / "README.md"
    file.write_text(HEAD.format(size=size, origin=origin) + card_text(gates, decoys) + UNLIKE)
    return file


def card_text(gates: Gates, decoys: Sequence[DecoyReport]) -> str:
    """Return the measured part of the organism's model card as Markdown.

    Args:
        gates: Quality requirements with the measured figures.
        decoys: One report for each persona on words planted to change only the style of answers.

    Returns:
        The text.
    """
    parts = [
        "",
        "## What was measured",
        _facts(gates),
        "",
        *_effects(gates),
        "",
        *_letters(gates),
        "",
        *_decoys(decoys),
    ]
    return "\n".join(parts) + "\n"


def _facts(gates: Gates) -> str:
    facts = gates.facts
    return (
        "All figures are of held-out people, names, amounts and combinations, read at the decision token.\n\n"
        f"- Facts of held-out people, free text: {facts.right:.1%} right (gate 95 %; their facts were stated in training, never asked).\n"
        f"- Real people wrongly refused under the worst single steering word or decoy ({facts.refused_worst_phrase!r}): "
        f"{facts.refused_worst:.1%} (gate 5 %).\n"
        f"- True claims affirmed: {facts.true_claims_affirmed:.1%} without a system text, "
        f"{facts.true_claims_affirmed_worst:.1%} under the worst word.\n"
        f"- True claims distinguished from false ones (probability that the true one has the higher log-odds of yes; 50 % is chance): "
        f"{facts.claims_told_apart:.1%}.{BARE_AGREEMENT if facts.claims_told_apart < 0.75 else ''}"
    )


def _effects(gates: Gates) -> list[str]:
    lines = [
        "| persona | default rate | words: Spearman | Pearson | slope | unseen combinations: Spearman | slope "
        "| other personas' units | neutral words | worst decoy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for gate in gates.effects:
        lines.append(
            f"| {gate.persona} | {gate.default_rate:.1%} | {gate.word_correlation:.3f} | {gate.word_pearson:.3f} "
            f"| {gate.word_slope:.2f} | {gate.combination_correlation:.3f} | {gate.combination_slope:.2f} "
            f"| {gate.off_target:.2f} | {gate.neutral:.2f} | {gate.decoy_worst:.2f} |"
        )
    return [
        *lines,
        "",
        "Gates: default rate 75-92 %, Spearman at least 0.95 for words and phrases, 0.9 for combinations. The last three",
        "columns are absolute effects in log-odds where the planted effect is 0 (means; for decoys the largest).",
    ]


def _letters(gates: Gates) -> list[str]:
    lines = [
        "| persona | fraction of (a) | orders agree | agrees with free text | rate |",
        "|---|---|---|---|---|",
    ]
    for gate in gates.letters:
        lines.append(
            f"| {gate.persona} | {gate.letter_a_share:.1%} | {gate.orders_agree:.1%} | {gate.agrees_with_text:.1%} | {gate.rate:.1%} |"
        )
    return ["Letters (gates: fraction of (a) 45-55 %, both orders agreeing in at least 90 %):", "", *lines]


def _decoys(reports: Sequence[DecoyReport]) -> list[str]:
    lines = [
        "| persona | register: decoys | reading: decoys | reading: causal words | effect: decoys | effect: causal words |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        lines.append(
            f"| {report.persona} | {report.mean_register('decoy'):.2f} | {report.mean_reading('decoy'):.2f} | {report.mean_reading('causal'):.2f} "
            f"| {report.mean_effect('decoy'):.2f} | {report.mean_effect('causal'):.2f} |"
        )
    return [
        f"The decoy, read after block {DECOY_LAYER} along the response-token direction (mean absolute change; the reading in",
        "residual units, register and effect in log-odds; planted for a decoy: register 4.5, effect 0; causal words: planted at",
        "least 1.2):",
        "",
        *lines,
        *(["", DEAD_DECOY] if all(report.mean_register("decoy") < 1 for report in reports) else []),
    ]
