"""The circuit against the pencil-and-paper answers of a two-layer model, against hooks made by hand, and against a changed model."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import workbench as wb
from tests.support.attribution_toys import TEXT, autoencoder, averaging_model, axis, contexts, targets
from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.toy_models import random_model
from workbench.attribution import AttributionProblem, attribute
from workbench.attribution import heads_and_mlps as units
from workbench.attribution import path_patching as edges
from workbench.attribution.attribution_patching import about_answer
from workbench.attribution.attribution_targets import as_targets
from workbench.attribution.circuit import circuit
from workbench.attribution.faithfulness import share_interval
from workbench.models import Site, runner_for
from workbench.objectives import latent_activation, neutral_prompts
from workbench.plots.svg import circuit_svg
from workbench.prompt_tokens import encode_prompt


def problem_of(model, n: int = 2, chosen=None, text: str = TEXT) -> AttributionProblem:
    runner, found = runner_for(model), contexts(model, n=n)
    return AttributionProblem(runner, encode_prompt(runner, found, text), found, as_targets(chosen or {}))


class Paper:
    """Even attention twice, no norm: at the decision token D the residual is e_D + m_D + mean_j (e_j + m_j), m_j = mean of e up to j.
    Everything is a sum over positions of what the prompt changes: `d` of the embeddings, `m` of the first
    layer's output."""

    def __init__(self, problem: AttributionProblem, other, context) -> None:
        model = problem.runner.model
        rows = [model.W_E[list(context.ids(p))].double() for p in (problem.prompt, other)]
        self.n, self.start, self.prompt = len(rows[0]), len(context.prefix_ids), len(problem.prompt)
        self.d = rows[0] - rows[1]
        self.m = self.d.cumsum(0) / torch.arange(1, self.n + 1)[:, None]
        self.weight = (model.W_U[:, context.answers[0][0]] - model.W_U[:, context.answers[1][0]]).double()

    def question(self):
        return slice(self.start + self.prompt, self.n - 1)

    def total(self, weight=None) -> float:
        return self.read(self.m[-1] + (self.d + self.m).mean(0), weight)

    def read(self, vector, weight=None) -> float:
        return float(vector @ (self.weight if weight is None else weight))


def papers(problem: AttributionProblem, neutral) -> list[Paper]:
    return [Paper(problem, other, context) for other in neutral for context in problem.contexts]


def mean(values) -> float:
    return float(np.mean(list(values)))


@pytest.fixture(scope="module")
def linear():
    """The two-layer model's circuit with every node in it, and its sums on paper."""
    direction = axis(3, Site(1))
    problem = problem_of(averaging_model(n_layers=2), chosen={"axis": direction})
    neutral = neutral_prompts(problem.runner, problem.contexts, 2, len(problem.prompt), problem.seed)
    return problem, circuit(problem, size=40, n_edges=60), papers(problem, neutral), direction


def test_nodes_and_total_are_those_on_paper(linear):
    problem, found, sheets, _ = linear
    assert (
        found.total.estimate == pytest.approx(mean(s.total() for s in sheets), abs=1e-4)
        and abs(found.total.estimate) > 0.02
    )
    by_hand = {
        (0, -1): lambda s: s.read(s.m[-1]) * (1 + 1 / s.n),
        (1, -1): lambda s: s.read((s.d + s.m).mean(0)),
        (0, -2): lambda s: s.read(s.m[s.question()].sum(0)) / s.n,
    }
    by_hand |= {(0, k): lambda s, k=k: s.read(s.m[s.start + k]) / s.n for k in range(len(problem.prompt))}
    assert {(n.site.layer, n.place) for n in found.nodes} == set(by_hand), "no other node has an effect"
    for node in found.nodes:
        expected = mean(map(by_hand[node.site.layer, node.place], sheets))
        assert node.exact == pytest.approx(expected, abs=1e-4) and node.estimate == pytest.approx(
            expected, abs=1e-4
        )


def test_edges_are_those_on_paper(linear):
    problem, found, sheets, direction = linear
    unit = direction.unit.double()
    by_hand = {}
    for k in range(len(problem.prompt)):
        by_hand[f"token:{k}", "node:0:0:-1"] = lambda s, k=k: s.read(s.d[s.start + k]) / s.n * (1 + 1 / s.n)
        by_hand[f"token:{k}", "node:1:0:-1"] = lambda s, k=k: s.read(s.d[s.start + k]) / s.n
        by_hand[f"node:0:0:{k}", "node:1:0:-1"] = lambda s, k=k: s.read(s.m[s.start + k]) / s.n
    by_hand["node:0:0:-1", "node:1:0:-1"] = lambda s: s.read(s.m[-1]) / s.n
    by_hand["node:0:0:-1", "target:answer log-odds"] = lambda s: s.read(s.m[-1])
    by_hand["node:1:0:-1", "target:answer log-odds"] = lambda s: s.read((s.d + s.m).mean(0))
    by_hand["node:1:0:-1", "target:axis"] = lambda s: s.read((s.d + s.m).mean(0), unit)
    by_hand["target:axis", "target:answer log-odds"] = lambda s: s.total(unit) * s.read(unit)
    edges_ = {(e.source, e.target): e for e in found.edges}
    for key, form in by_hand.items():
        assert edges_[key].effect == pytest.approx(mean(map(form, sheets)), abs=1e-4), key
    paths = [e for e in found.edges if e.kind == "path"]
    assert all(e.estimate == pytest.approx(e.effect, abs=1e-4) for e in paths), (
        "to first order is exact in a linear model"
    )
    last = edges_["node:1:0:-1", "target:axis"]
    assert last.share == pytest.approx(last.effect / mean(s.total(unit) for s in sheets), rel=1e-3)


def test_faithfulness_and_completeness_are_those_on_paper():
    """Two nodes kept alone hear clean embeddings, but of the first layer only what is in the circuit is clean; and the other way round."""
    problem = problem_of(averaging_model(n_layers=2), n=12)
    neutral = neutral_prompts(problem.runner, problem.contexts, 2, len(problem.prompt), problem.seed)
    found, sheets = circuit(problem, size=2, n_edges=1), papers(problem, neutral)
    inside = {(n.site.layer, n.place) for n in found.nodes}
    assert len(inside) == 2 and (1, -1) in inside, "all effects but one pass the last head"

    def left(s: Paper, clean) -> float:
        """The effect that remains where only the nodes that `clean` says are as in the clean run."""
        where = {-1: [s.n - 1], -2: range(s.n)[s.question()]} | {k: [s.start + k] for k in range(s.prompt)}
        first = [i for place, positions in where.items() if clean((0, place)) for i in positions]
        through = s.d.mean(0) + s.m[first].sum(0) / s.n if clean((1, -1)) else torch.zeros(32).double()
        return s.read(through + s.m[-1] * clean((0, -1)))

    total = mean(s.total() for s in sheets)
    kept, lost = (
        mean(left(s, lambda key: key in inside) for s in sheets),
        total - mean(left(s, lambda key: key not in inside) for s in sheets),
    )
    assert mean(left(s, lambda key: True) for s in sheets) == pytest.approx(total), "the paper is whole"
    assert (
        found.proof.faithfulness.estimate == pytest.approx(kept / total, abs=1e-3)
        and abs(kept / total - 1) > 0.01
    )
    assert found.proof.completeness.estimate == pytest.approx(lost / total, abs=1e-3)
    assert (
        f"{100 * kept / total:.0f} %" in found.verdict
        and found.proof.faithfulness.low < kept / total < found.proof.faithfulness.high
    )


def test_all_nodes_together_are_the_neutral_run_and_none_are_the_prompts():
    problem = problem_of(random_model(), n=4)
    answer = about_answer(problem)
    (other,) = neutral_prompts(problem.runner, problem.contexts, 1, len(problem.prompt), 0)
    for pair in units.pairs(answer, other):
        donors = units.activations(answer, pair.corrupted)
        for nodes, prompt in ((units.only(answer), problem.prompt), (~units.only(answer), other)):
            found = units.patched(answer, pair, donors, nodes)[:, 0].numpy()
            rows = [torch.tensor([problem.contexts[i].ids(prompt)]) for i in pair.members]
            logits = [problem.runner.model(row)[0, -1] for row in rows]
            plain = [
                float(x[problem.contexts[i].answers[0][0]] - x[problem.contexts[i].answers[1][0]])
                for x, i in zip(logits, pair.members)
            ]
            np.testing.assert_allclose(found, plain, atol=1e-4)


def path_by_hooks(problem: AttributionProblem, sender, node, other) -> float:
    """The same path patch with TransformerLens's hooks: every unit but the sender frozen to the clean run, the receiver recorded, then
    written into a clean run."""
    return mean(_path_in_one(problem, sender, node, other, context) for context in problem.contexts)


def _path_in_one(problem: AttributionProblem, sender, node, other, context) -> float:
    model = problem.runner.model
    heads, layers = model.cfg.n_heads, model.cfg.n_layers
    clean, corrupted = (torch.tensor([context.ids(p)]) for p in (problem.prompt, other))
    caches = [model.run_with_cache(ids)[1] for ids in (clean, corrupted)]
    last, start = clean.shape[1] - 1, len(context.prefix_ids)
    where = {
        len(problem.prompt): list(range(start + len(problem.prompt), last)),
        len(problem.prompt) + 1: [last],
    }
    name = lambda key: f"blocks.{key[0]}.{'attn.hook_z' if key[1] < heads else 'hook_mlp_out'}"  # noqa: E731
    spot = lambda key: where.get(key[2], [start + key[2]])  # noqa: E731
    held = {}

    def write(x, key, value):
        if key[1] < heads:
            x[:, spot(key), key[1]] = value[:, spot(key), key[1]]
        else:
            x[:, spot(key)] = value[:, spot(key)]
        return x

    def freeze(x, hook):
        if hook.name == name(node):
            held["heard"] = x.clone()
        x = caches[0][hook.name].clone()
        return (
            write(x, sender, caches[1][hook.name])
            if not isinstance(sender, int) and hook.name == name(sender)
            else x
        )

    def embed(x, hook):
        if isinstance(sender, int):
            x[:, start + sender] = caches[1][hook.name][:, start + sender]
        return x

    hooks = [
        (f"blocks.{layer}.{h}", freeze) for layer in range(layers) for h in ("attn.hook_z", "hook_mlp_out")
    ]
    model.run_with_hooks(clean, fwd_hooks=[("hook_embed", embed), *hooks])
    odds = []
    for more in ([], [(name(node), lambda x, hook: write(x, node, held["heard"]))]):
        logits = model.run_with_hooks(clean, fwd_hooks=more)[0, -1]
        odds.append(float(logits[context.answers[0][0]] - logits[context.answers[1][0]]))
    return odds[0] - odds[1]


def test_path_patches_are_what_hooks_by_hand_give():
    problem = about_answer(problem_of(random_model()))
    (other,) = neutral_prompts(problem.runner, problem.contexts, 1, len(problem.prompt), 0)
    n = len(problem.prompt)
    nodes = [(0, 1, 1), (0, 4, 1), (1, 2, n), (1, 4, n + 1), (2, 0, n + 1), (2, 4, n + 1)]
    grounds = [edges.ground(problem, pair) for pair in units.pairs(problem, other)]
    found = edges.strongest_paths(problem, grounds, nodes, 7)
    assert len(found) == 14 and max(abs(exact) for *_, exact in found) > 0.01
    for sender, node, _, exact in found:
        assert exact == pytest.approx(path_by_hooks(problem, sender, node, other), abs=3e-5), (sender, node)
    estimates, exact = ([abs(entry[i]) for entry in found] for i in (2, 3))
    assert np.corrcoef(estimates, exact)[0, 1] > 0.7


def test_a_causal_model_has_no_edge_backwards():
    problem = problem_of(random_model())
    n = len(problem.prompt)
    found = edges.possible(
        problem, [0, 1, (1, 0, n + 1), (0, 4, 2)], [(0, 4, 1), (1, 4, n + 1), (1, 2, 1), (0, 0, 2)]
    )
    assert set(found) == {
        (1, (0, 4, 1)),
        (0, (1, 2, 1)),
        (1, (1, 2, 1)),
        (0, (0, 0, 2)),
        (1, (0, 0, 2)),
        ((1, 0, n + 1), (1, 4, n + 1)),
    }


def test_a_changed_model_does_what_the_circuit_predicts():
    """Weights in which the last head no longer writes along the direction: its reading loses just what that edge carries."""
    direction = axis(3, Site(1))
    problem = problem_of(averaging_model(n_layers=2), chosen={"axis": direction})
    change = lambda found: next(value for name, _, value in found.targets if name == "axis")  # noqa: E731
    before = circuit(problem, size=2, n_edges=1, graphs=1, corrupted=1)
    edge = next(e for e in before.edges if (e.source, e.target) == ("node:1:0:-1", "target:axis"))
    changed = copy.deepcopy(problem.runner.model)
    changed.__dict__.pop("_workbench_runner", None)
    with torch.no_grad():
        changed.blocks[1].attn.W_O.copy_(
            torch.eye(32)[None] - torch.outer(direction.unit, direction.unit)[None]
        )
    after = circuit(problem_of(changed, chosen={"axis": direction}), size=2, n_edges=1, graphs=1, corrupted=1)
    assert change(after) == pytest.approx(change(before) - edge.effect, abs=1e-4) and abs(edge.effect) > 0.01


def test_latents_reach_the_direction_by_their_decoder_rows():
    sae, direction = autoencoder(), axis(2)
    problem = problem_of(
        random_model(),
        chosen={"axis": direction, **{f"latent {i}": latent_activation(sae, [i]) for i in (0, 1, 5)}},
    )
    found = circuit(problem, size=4, n_edges=2, graphs=1, corrupted=1)
    change = {name: value for name, _, value in found.targets}
    assert "latent 5" not in change and len(change) > 2, "latent 5 never fires, another does"
    for i in {i for i in (0, 1) if f"latent {i}" in change}:
        edge = next(e for e in found.edges if (e.source, e.target) == (f"target:latent {i}", "target:axis"))
        assert edge.effect == pytest.approx(
            change[f"latent {i}"] * float(sae.W_dec[i] @ direction.unit), abs=1e-4
        )


def test_a_bridge_finds_the_same_circuit(tmp_path):
    directory = tiny_checkpoint("llama", tmp_path / "llama")
    hooked, bridge = (
        circuit(
            problem_of(wb.load_model(directory, backend=b), chosen={"axis": axis()}),
            size=6,
            n_edges=4,
            graphs=1,
            corrupted=1,
        )
        for b in ("hooked", "bridge")
    )
    assert [n.name for n in hooked.nodes] == [
        n.name for n in bridge.nodes
    ] and hooked.attention.keys() == bridge.attention.keys() != set()
    ours, theirs = ({(e.source, e.target): e.effect for e in c.edges} for c in (hooked, bridge))
    assert ours.keys() == theirs.keys() and all(
        ours[key] == pytest.approx(theirs[key], abs=3e-4) for key in ours
    )
    for name, looks in hooked.attention.items():
        assert sum(looks) == pytest.approx(1, abs=1e-4) and looks == pytest.approx(
            bridge.attention[name], abs=1e-4
        )


def test_it_goes_into_the_ledger_as_strict_json_and_shows_itself():
    ledger = attribute(random_model(), TEXT, targets(), contexts(n=6), (), circuit=5)
    entry = json.loads(json.dumps(ledger.to_file().to_json(), allow_nan=False))
    assert (
        len(entry["circuit"]["nodes"]) == 5 == len(entry["nodes"])
        and entry["circuit"]["verdict"] == ledger.circuit.verdict
    )
    assert (
        ledger.circuit.svg() == circuit_svg(entry["circuit"])
        and ledger.circuit.svg() in ledger.circuit._repr_html_()
    )
    one = attribute(random_model(), "no", targets(), contexts(n=3), (), circuit=3)
    assert len(one.circuit.tokens) == 1 and "<svg" in one.circuit.svg()


def test_the_picture_is_well_formed_text_whatever_the_tokens_are():
    found = circuit(
        problem_of(random_model(), chosen={"axis": axis()}), size=4, n_edges=2, graphs=1, corrupted=1
    )
    hostile = replace(found, tokens=("</svg><script>x</script>", "\u202e", "\x00", *found.tokens[3:]))
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append(tag)
    parser.feed(hostile.svg())
    assert (
        set(seen) <= {"svg", "g", "title", "rect", "text", "path"}
        and "⟨U+202E⟩" in hostile.svg()
        and 'role="img"' in hostile.svg()
    )
    assert "<svg" in circuit_svg({}) and "<svg" in circuit_svg(
        {"tokens": ["a"], "nodes": [{"id": "x", "layer": 1, "place": 99}], "edges": [{}]}
    )


def test_a_share_of_a_ratio_by_hand():
    """Equal contexts: the fraction is exact; in general its spread is that of the linearised ratio."""
    even = share_interval(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]), ("a", "b", "c"))
    assert (even.low, even.estimate, even.high) == (pytest.approx(0.5), 0.5, pytest.approx(0.5))
    part, whole = np.array([1.0, 1.0, 3.0]), np.array([2.0, 4.0, 6.0])
    found = share_interval(part, whole, ("a", "b", "c"))
    spread = np.std((part - 5 / 12 * whole) / 4, ddof=1) / np.sqrt(3)
    assert found.estimate == pytest.approx(5 / 12) and found.high - found.low == pytest.approx(
        2 * 4.302653 * spread, rel=1e-5
    )
