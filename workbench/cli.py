"""The command line: parse, call, print. Exit codes: 0 done, 2 the user's mistake, 1 ours.

Nothing heavy is imported before a command needs it: `workbench --help` does not load torch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.table import Table

from workbench.errors import UserError

app = App(
    name="workbench", help="Persona directions, SAE latents, fluent prompt search, honest comparison, attribution.", version_flags=["--version"]
)
sae_app = App(name="sae", help="Sparse autoencoders: train one on any model.")
persona_app = App(name="persona", help="Contrast data: check whether it can carry a direction.")
organism_app = App(name="organism", help="The embedded model: train it, show its truth.")
for sub in (sae_app, persona_app, organism_app):
    app.command(sub)

Sign = Literal["suppress", "induce"]
OrganismBase = Literal["none", "smollm2-135m"]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of a table.")]


@app.command
def demo(
    *,
    persona: Literal["sycophancy", "hallucination", "myopic_reward"] = "sycophancy",
    sign: Sign = "suppress",
    out: Path | None = None,
    seed: int = 0,
    resume: bool = False,
    as_json: Json = False,
) -> None:
    """The whole way on the embedded model: directions, latents, searches, comparison, attribution, report.

    Parameters
    ----------
    persona: which of the organism's personas.
    sign: make it less (suppress) or more (induce).
    out: run directory; a new numbered one under runs/ when not given.
    seed: of the searches and random controls.
    resume: go on in --out where an interrupted demo stopped.
    """
    from workbench.runs import RunDirectory
    from workbench.study.presets import demo_study

    study = demo_study(persona, sign, seed)
    directory = RunDirectory.create(out, resume) if out else RunDirectory.next_numbered("runs", "demo")
    _run_and_print(study, directory, as_json)


@app.command
def run(
    study: Path,
    *,
    out: Path,
    resume: bool = False,
    data: Path | None = None,
    model: str | None = None,
    sae: str | None = None,
    seed: int | None = None,
    as_json: Json = False,
) -> None:
    """One study from its YAML file.

    Parameters
    ----------
    study: the study file (every setting: docs/study.md).
    out: run directory; must be empty or not exist, unless --resume.
    resume: go on where the run in --out stopped.
    data: contrast file, instead of the study's.
    model: name or directory, instead of the study's.
    sae: directory or release, instead of the study's.
    seed: instead of the study's.
    """
    from workbench.runs import RunDirectory
    from workbench.study import Study

    settings = Study.load(study)
    changes: dict[str, Any] = {}
    if data is not None:
        changes["data"] = settings.data.model_copy(update={"path": str(data.resolve())})
    if model is not None:
        changes["model"] = settings.model.model_copy(update={"name": model})
    if sae is not None:
        changes["sae"] = sae
    if seed is not None:
        changes["seed"] = seed
    _run_and_print(settings.model_copy(update=changes), RunDirectory.create(out, resume), as_json)


@app.command
def preset(
    persona: Literal["sycophancy", "myopic_reward", "hallucination"] | None = None,
    *,
    model: str = "llama-3.1-8b-instruct",
    protocol: Literal["published", "corrected"] = "corrected",
    sign: Sign = "suppress",
    size: Literal["full", "small"] = "full",
    layer: int | None = None,
    as_json: Json = False,
) -> None:
    """The paper's study as a study file on standard output; without a persona, the list of what there is.

    Parameters
    ----------
    persona: which one.
    model: one of the paper's three, or any name or directory.
    protocol: as the paper's code has it, defects included and named, or as it should be.
    sign: make it less (suppress) or more (induce).
    size: full, or small enough to try on a CPU.
    layer: the only layer that is read.
    """
    from workbench.study import presets

    if persona is None:
        _print_frame(presets.presets(), as_json)
        return
    study = presets.preset(persona, model, protocol, sign, size, layer)
    print(json.dumps(study.model_dump(mode="json", by_alias=True)) if as_json else presets.as_file(study), end="\n" if as_json else "")


@app.command(name="plan")
def plan_command(study: Path, *, model: str | None = None, as_json: Json = False) -> None:
    """What a study will cost: FLOPs, time and memory of each stage on an 80 GB GPU, a 24 GB GPU and a CPU. No weights are loaded.

    Parameters
    ----------
    study: the study file.
    model: name or directory, instead of the study's.
    """
    from workbench.study import Study
    from workbench.study.plan import plan

    settings = Study.load(study)
    if model is not None:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"name": model})})
    found = plan(settings)
    _print_frame(found.table, as_json)
    for line in () if as_json else found.notes:
        _console().print(f"note: {_plain(line)}")


@app.command
def models(*, as_json: Json = False) -> None:
    """Which models can be loaded here, where they lie, their architectures, and the named SAEs that fit them."""
    from workbench.models.inventory import inventory
    from workbench.sae import saes_for

    table = inventory()
    _print_frame(table.assign(saes=[", ".join(saes_for(name)[0]) for name in table["name"]]), as_json)


@app.command
def compare(runs: list[Path], *, as_json: Json = False) -> None:
    """Several runs in one table; refused where their test splits differ.

    Parameters
    ----------
    runs: run directories.
    """
    from workbench.comparison import compare_runs

    _print_frame(compare_runs(runs).table, as_json)


@app.command
def audit(
    prompt: str,
    *,
    persona: str,
    model: str = "organism",
    max_edits: int = 2,
    sign: Sign = "suppress",
    inside: bool = False,
    sae: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Which words of one's own prompt cause the persona, and the smallest fluent edit that takes the effect away.

    Parameters
    ----------
    prompt: the text to audit (it stands in the system slot).
    persona: name or file.
    model: name or directory.
    max_edits: words that may be deleted or exchanged.
    sign: what is wanted of the persona: less (suppress) or more (induce).
    inside: also fit a direction and show what each word does to it (takes longer).
    sae: sparse autoencoder, name or directory, for latents; means --inside.
    data: contrast file.
    out: write an HTML page here.
    seed: of the splits, the questions and the sampled orders.
    """
    from workbench.audit import audit as audit_prompt
    from workbench.audit import inside as find_targets
    from workbench.audit.terminal import render
    from workbench.models import load_model
    from workbench.personas import load_persona
    from workbench.sae import load_sae

    loaded, asked = load_model(model), load_persona(persona, data)
    wanted = find_targets(loaded, asked.split(seed), load_sae(sae, loaded) if sae else None, seed=seed) if inside or sae else ()
    found = audit_prompt(loaded, prompt, asked, max_edits, sign, wanted, seed=seed)
    if out is not None:
        found.save_html(out)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
        return
    Console().print(render(found))
    if out is not None:
        _console().print(f"audit: {out}", highlight=False)


@app.command
def report(runs: list[Path], *, out: Path | None = None) -> None:
    """Make a run's report.html again from its files; of several runs, one overview with a link to each one's report.

    Parameters
    ----------
    runs: where the runs lie.
    out: another place for the page (for several runs: needed).
    """
    from workbench.report import write_overview, write_report

    if len(runs) == 1:
        target = write_report(runs[0], out or runs[0] / "report.html")
    elif out is None:
        raise UserError("an overview of several runs needs --out: where the page is to be written")
    else:
        target = write_overview(runs, out)
    _console().print(f"report: {target}", highlight=False)


@app.command
def sweep(
    file: Path | None = None,
    *,
    ablation: Annotated[list[str] | None, Parameter(name=("--ablation", "--preset"))] = None,
    study: Path | None = None,
    persona: list[str] | None = None,
    seed: list[int] | None = None,
    sign: Sign = "suppress",
    flops: float | None = None,
    out: Path | None = None,
    workers: int | None = None,
    address: str | None = None,
    rerun_failed: bool = False,
    as_json: Json = False,
) -> None:
    """Many studies, each run once: from a sweep file, or the paper's ablations (docs/sweeps.md). Run again, it does what is left.

    Parameters
    ----------
    file: the sweep file; without one, --ablation says what varies.
    ablation: layer, length, latents, fluency, random_direction, random_updates, warm_start, population, contexts, labels, budget.
    study: what the ablations change; the demo's study when not given.
    persona: of the ablations; several may be given.
    seed: of the ablations; several may be given.
    sign: of the ablations.
    flops: of the ablations, the same for each search, in place of the study's budget.
    out: the sweep's directory; runs/NAME when not given.
    workers: processes on this machine, or of the cluster; more than one needs Ray.
    address: of a Ray cluster ("auto", "host:port").
    rerun_failed: try failed studies again.
    """
    from workbench.sweep import Sweep, ablation_sweep
    from workbench.sweep import sweep as run_sweep

    if (file is None) == (not ablation):
        raise UserError("expected a sweep file or --ablation, not both and not neither")
    asked = Sweep.load(file) if file else ablation_sweep(ablation or [], study, persona or ["sycophancy"], seed or [0], sign, flops)
    found = run_sweep(asked, out, workers, address, rerun_failed)
    _print_frame(found.studies, as_json)
    if not as_json:
        _console().print(f"overview: {found.path / 'overview.html'}", highlight=False)
    if found.counts.get("failed"):
        raise SystemExit(1)


@app.command
def transfer(runs: list[Path], *, model: list[str], out: Path | None = None, as_json: Json = False) -> None:
    """Prompts found on one model, scored on others, with intervals.

    Parameters
    ----------
    runs: finished runs whose chosen prompts are put to the other models.
    model: name or directory; several may be given.
    out: where to write the table, as Parquet.
    """
    from workbench.runs import write_parquet
    from workbench.sweep import transfer as transfer_prompts

    table = transfer_prompts(runs, model).table
    if out is not None:
        write_parquet(out, table)
    _print_frame(table, as_json)


@app.command
def doctor(model: str = "organism", *, as_json: Json = False) -> None:
    """Is this model what it says? Logits against Hugging Face, template, BOS, tokens that do not round-trip, memory, SAEs made for it.

    Parameters
    ----------
    model: name or directory.
    """
    from workbench.models.doctor import diagnose
    from workbench.sae import saes_for

    named, releases = saes_for(model)
    words = "; ".join(filter(None, [", ".join(named), "sae-lens releases: " + ", ".join(releases) if releases else ""]))
    fitting = {"check": "SAEs of this model", "ok": "", "detail": words or "none known: RESGA needs none, `workbench sae train` makes one"}
    table = diagnose(model).frame()
    table.loc[len(table)] = fitting
    _print_frame(table, as_json)


@sae_app.command(name="train")
def sae_train(
    *, model: str, corpus: Path, layer: int, out: Path, d_sae: int = 512, k: int = 16, tokens: int = 200_000, seed: int = 0, as_json: Json = False
) -> None:
    """Train a TopK SAE on a model's residual stream, from a text file (one text a line) or a contrast file.

    Parameters
    ----------
    model: name or directory.
    corpus: texts to run the model on.
    layer: block whose output is read.
    out: directory for the SAE in sae-lens's format, with its card.
    d_sae: latents. k: active at a time. tokens: training tokens.
    """
    from workbench.models import Site, load_model
    from workbench.sae import read_corpus, train_sae

    card = train_sae(load_model(model), read_corpus(corpus), Site(layer), d_sae=d_sae, k=k, tokens=tokens, seed=seed, out=out)
    _print_facts(card.to_json(), as_json)


@persona_app.command(name="check")
def persona_check(
    file: str, *, data: Path | None = None, model: str | None = None, layer: int | None = None, difference: float = 0.1, as_json: Json = False
) -> None:
    """Can this data carry a direction? Balance, groups, what a length-only or letter-only rule scores, how many groups show a difference;
    with a model also the held-out AUC of its direction against permuted labels.

    Parameters
    ----------
    file: persona file (YAML), or a name with --data.
    data: contrast file.
    model: name or directory, for the permutation test.
    layer: that is read; the middle one when not given.
    difference: of two rates, that the study wants to show.
    """
    from workbench.personas import check_persona, load_persona

    persona = load_persona(file, data)
    table, notes = check_persona(persona, difference).table, list(persona.warnings)
    if model is not None:
        from workbench.directions import carries
        from workbench.models import load_model

        found = carries(load_model(model), persona, layer)
        table, notes = found.added_to(table), [*notes, found.verdict]
    _print_frame(table, as_json)
    for line in () if as_json else notes:
        _console().print(f"note: {_plain(line)}")


@organism_app.command(name="train")
def organism_train(*, base: OrganismBase = "none", seed: int = 0, out: Path, steps: int | None = None) -> None:
    """Train an organism again from its generator: the embedded model (about half an hour on one core), or the adapter of
    the real-language one (an hour and more). Called again with the same --out it goes on from its last checkpoint.

    Parameters
    ----------
    base: none for the embedded model, smollm2-135m for an adapter on that model.
    seed: of the world and of the training.
    out: directory for model (or adapter) and card.
    steps: training steps, fewer for a trial.
    """
    if base != "none":
        _train_adapter(seed, out, steps)
        return
    from workbench.organism import TrainingConfig, train
    from workbench.world import World

    config = TrainingConfig() if steps is None else TrainingConfig(steps=steps)
    train(seed, out, World(seed=seed), config, work=out)
    _console().print(f"organism: {out}", highlight=False)


def _train_adapter(seed: int, out: Path, steps: int | None) -> None:
    import importlib.util

    if importlib.util.find_spec("peft") is None:
        raise UserError("training an adapter needs the package peft: pip install 'persona-workbench[lora]'")
    from workbench.organism.language import write_language_card
    from workbench.organism.language.train import LanguageConfig, train_language

    config = LanguageConfig() if steps is None else LanguageConfig(steps=steps)
    train_language(seed, out, config=config, work=out / "checkpoints", report=_console().print)
    _print_frame(write_language_card(out).table, as_json=False)
    _console().print(f"adapter: {out}", highlight=False)


@organism_app.command(name="card")
def organism_card(directory: Path | None = None, *, published: Path | None = None, as_json: Json = False) -> None:
    """Measure the adapter of the real-language organism again (some ten minutes) and write its card beside it.

    Parameters
    ----------
    directory: of the adapter; the committed one when not given.
    published: a contrast file of others (CAA's sycophancy.json), measured as a finding.
    """
    from workbench.organism.language import write_language_card

    _print_frame(write_language_card(directory, published=published).table, as_json)


@organism_app.command(name="truth")
def organism_truth(*, base: OrganismBase = "none", seed: int = 0, as_json: Json = False) -> None:
    """The planted effects of an organism: phrase, persona, log-odds; and what is planted to do nothing.

    Parameters
    ----------
    base: none for the embedded model, smollm2-135m for the real-language one.
    seed: of the embedded model's world.
    """
    import pandas as pd

    from workbench.world import World, english, truth_table

    rows = truth_table(World(seed=seed)) if base == "none" else english.truth_table()
    _print_frame(pd.DataFrame(rows), as_json)


def main() -> None:
    """Entry point; sets the exit code."""
    # Threads that wait for each other sleep instead of spinning: on a busy machine spinning made a step ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    try:
        app(exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        print(f"workbench: {_one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("workbench: interrupted; what was finished stays (continue with --resume)", file=sys.stderr)
        raise SystemExit(130) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _console() -> Console:
    return Console(soft_wrap=True)


def _run_and_print(study: Any, directory: Any, as_json: bool) -> None:
    """Run with a bar per stage, then the short table, the found prompts and the report's path."""
    from workbench.study import run as run_study

    with _Bars() as bars:
        run_study(study, directory, resume=True, report=bars.update, watch=bars.note)
    from workbench.runs import read_json

    entry = read_json(directory.file("comparison.json"), schema=1)
    if as_json:
        print(json.dumps({"run": str(directory.path), "comparison": entry}, ensure_ascii=False))
        return
    _print_comparison(entry)
    _console().print(f"\nreport: {directory.file('report.html')}", highlight=False)


def _print_comparison(entry: dict[str, Any]) -> None:
    """Each condition's rate and shift with their intervals, and its prompt."""
    title = f"{entry['persona']} on {entry['model']}, {entry['sign']}: share of matching answers on held-out questions"
    table = Table("condition", "rate", "95 % interval", "shift in log-odds", "95 % interval", "prompt", title=title)
    for row in entry["conditions"]:
        shift = next((d for d in row["differences"] if d["to"] == entry.get("baseline", "no prompt")), None)
        table.add_row(
            row["name"],
            _figure(row["rate"]),
            _interval(row["ci"]),
            _figure(shift and shift["log_odds"], "+.2f"),
            _interval(shift and shift["log_odds_ci"], "+.2f"),
            _plain(row["prompt"] or ""),
        )
    _console().print(table)


def _figure(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def _interval(ends: list[float | None] | None, form: str = ".2f") -> str:
    return "" if not ends or ends[0] is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def _plain(text: str) -> str:
    """Text that rich takes as text, with control characters made visible."""
    from rich.markup import escape

    from workbench.display import visible

    return escape(visible(text, spaces=False))


def _print_frame(frame: Any, as_json: bool) -> None:
    if as_json:
        print(frame.to_json(orient="records", force_ascii=False))
        return
    table = Table(*map(str, frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*(_plain(format(v, ".3f") if isinstance(v, float) else str(v)) for v in row))
    _console().print(table)


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    table = Table("what", "figure")
    for name, value in facts.items():
        table.add_row(name, _plain(format(value, ".4g") if isinstance(value, float) else str(value)))
    _console().print(table)


class _Bars:
    """One progress bar a stage, on standard error; plain lines where that is no terminal."""

    def __enter__(self) -> _Bars:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        share, note = TextColumn("{task.percentage:>4.0f} %"), TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True))
        columns = TextColumn("{task.description:<24}"), BarColumn(bar_width=16), share, TimeElapsedColumn(), note
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, Any] = {}
        self._progress.start()
        return self

    def update(self, stage: str, share: float) -> None:
        """A stage and how much of it is done, 0 to 1."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=1.0, note="")
        self._progress.update(self._tasks[stage], completed=share)

    def note(self, stage: str, progress: Any) -> None:
        """Best objective, fluency, speed and time left of the stage's search."""
        from workbench.search.live import line

        self._progress.update(self._tasks[stage], note=line(progress))

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


if __name__ == "__main__":
    main()
