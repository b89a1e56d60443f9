"""Methods paragraph and figure captions, generated from the manifest and the other files of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from workbench.comparison import claim_sentences as words
from workbench.conditions import condition_label
from workbench.html_text import spoken
from workbench.report.load_run import RunContents
from workbench.report.paper.tables import latex
from workbench.schema import ComparisonFile, SearchFile

#: Names of the search methods in a paper.
METHOD_NAMES = {
    "epo": "EPO",
    "gcg": "GCG",
    "beam": "beam search",
    "guided": "guided search",
    "randomsearch": "random search",
    "sentences": "a search over sentences",
}
#: Form of a citation in a text that is not yet escaped for LaTeX.
_CITED = re.compile(r"\[\[([\w\\]+)\]\]")


def methods(contents: RunContents) -> tuple[str, list[str]]:
    """Write a methods paragraph about a run in LaTeX, for a paper.

    Args:
        contents: Contents of the run's files.

    Returns:
        The paragraph with its citations, and the BibTeX keys that it cites.
    """
    comparison, manifest = contents.comparison, contents.manifest
    cited = ["resga", "persona_workbench", "transformer_lens"]
    versions = manifest.versions if manifest else {}
    version = versions.get("persona-workbench", "")
    parts = [
        f"All figures were computed with the persona workbench {version} [[persona_workbench]] on TransformerLens "
        f"{versions.get('transformer-lens', '')} [[transformer_lens]]."
    ]
    if comparison is not None:
        parts += _questions(comparison)
    if contents.direction is not None:
        parts.append(
            f"The direction is read at {contents.direction.site} (method: {contents.direction.method.replace('_', ' ')})."
        )
    searches = contents.frontier.searches if contents.frontier else {}
    methods_used = dict.fromkeys(search.method.lower() for search in searches.values())
    cited += [key for key in methods_used if key in ("epo", "gcg")]
    parts += [
        _searches(method, {n: s for n, s in searches.items() if s.method.lower() == method})
        for method in methods_used
    ]
    if contents.latents is not None:
        cited.append("sae_lens")
        parts.append(
            f"SAEGA [[resga]] searches along {len(contents.latents.latents)} latents of a sparse autoencoder [[sae_lens]]."
        )
    if comparison is not None:
        cited += ["cr2", "holm"]
        parts.append(
            "Differences are paired on the same questions; intervals are 95 % t intervals of the mean log-odds with CR2 errors clustered by "
            "question group [[cr2]], p values are from sign flips of whole groups, corrected by Holm's method [[holm]]."
        )
    seeds = ", ".join(f"{name} {seed}" for name, seed in manifest.seeds.items()) if manifest else ""
    if seeds:
        reads = manifest.test_reads if manifest else 0
        parts.append(
            f"Seeds: {seeds}; the test questions were read {'once' if reads == 1 else f'{reads} times'}."
        )
    return _CITED.sub(
        lambda found: "\\cite{" + found[1].replace("\\_", "_") + "}", latex(" ".join(parts))
    ), cited


def _questions(comparison: ComparisonFile) -> list[str]:
    verb = "lower" if comparison.wanted < 0 else "raise"
    splits = ", ".join(
        f"{name} {split.n} questions in {split.groups} groups"
        for name, split in comparison.splits.items()
        if split.n
    )
    metric = "by letter in both orders" if comparison.metric == "letters" else "by the likelier whole answer"
    return [
        f"We searched for prompts in the {comparison.slot.replace('_', ' ')} slot that {verb} {spoken(comparison.persona)} in {comparison.model} "
        f"[[resga]].",
        f"Questions were split by group ({splits}); answers are scored {metric}.",
    ]


def _searches(method: str, searches: Mapping[str, SearchFile]) -> str:
    """Describe the searches of one method in one sentence.

    Example: `The searches RESGA (2.4e+11 FLOPs) and SAEGA (2.4e+11 FLOPs) used EPO.`
    """
    costs = {
        condition_label(name): search.cost.flops if search.cost else None for name, search in searches.items()
    }
    *first, last = [f"{name} ({cost:.2g} FLOPs)" if cost else name for name, cost in costs.items()]
    named = f"searches {', '.join(first)} and {last}" if first else f"search {last}"
    cite = f" [[{method}]]" if method in ("epo", "gcg") else ""
    return f"The {named} used {METHOD_NAMES.get(method, method)}{cite}."


def captions(contents: RunContents) -> dict[str, str]:
    """Write a caption for each figure of a run, by the figure's name.

    A caption names the estimator and the scale of its figure.

    Args:
        contents: Contents of the run's files.
    """
    comparison = contents.comparison
    found = {
        "layers": "AUC of distinguishing the persona's texts (solid) and rank correlation of the reading with what prompts do (dashed), by layer.",
        "frontier": "Prompts that no other prompt beats on both objective (up) and cross-entropy (left: more fluent); the chosen one is ringed.",
        "mediation": "Effect of the prompt on the answer's log-odds: the whole effect (broad) and the part through each mediator, measured by "
        "interchange in both directions; 95 % intervals over question groups.",
        "dose": "Change in log-odds with the first tokens of the prompt, one more at a time (circles), and with the direction added at rising "
        "strength (squares), against the reading along the direction.",
    }
    if comparison is not None and comparison.conditions:
        base = comparison.conditions[0]
        found["forest"] = (
            f"Change of the mean log-odds against no prompt on {base.n} test questions in {base.groups} groups of {spoken(comparison.persona)} "
            f"({comparison.model}); bars: 95 % t intervals, CR2 errors clustered by question group. Left is less of the persona."
        )
        found["questions"] = (
            "Log-odds of the answer that shows the persona for every test question; a tick is a question (mean over option orders)."
        )
    if contents.ledger is not None:
        found["ledger"] = (
            f"Effect of each token on each quantity, mean over {contents.ledger.get('n_contexts') or 'the'} selection questions, estimator: removal "
            "of the token. Shading: fraction of the row's largest effect."
        )
    if contents.claims is not None:
        found["table"] = words.claims_sentence([(r.claim, r.status) for r in contents.claims.results])
    return found
