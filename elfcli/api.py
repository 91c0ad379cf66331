"""The work behind the commands, as functions: `import elfcli; elfcli.load("RUN").generate(["Guten Tag"], steps=32)`.

Options have the names of the commands, which call these functions. `import elfcli` hands them on in a form that
writes to the logger `elf` instead of the terminal. Errors are `elfcli.InputError` (wrong input), `elfcli.Stopped`
(asked to stop, and saved) and `elfcli.ElfError`. With several processes, call `elfcli.parallel.join.join()` first in
each of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from elfcli.errors import InputError
from elfcli.ui.progress import logged, say, stages

if TYPE_CHECKING:
    from elfcli.config.schema import Config
    from elfcli.corpus.tokenize import Summary
    from elfcli.sampling.model import LoadedModel
    from elfcli.sampling.settings import SamplingSetting
    from elfcli.sampling.sources import Sources

Location = str | Path
Locations = Location | Sequence[Location] | None
Sets = Mapping[str, Any] | Sequence[str]
F = TypeVar("F", bound=Callable)


def quietly(function: F) -> F:
    """Return the function with the logger `elf` in place of the terminal."""

    @wraps(function)
    def inner(*args: Any, **options: Any) -> Any:
        with logged():
            return function(*args, **options)

    return inner  # type: ignore[return-value]


@dataclass(frozen=True)
class Model:
    """A trained model, which `elfcli.load` returns. loaded: weights, encoder, tokenizer, settings."""

    loaded: "LoadedModel"

    @property
    def config(self) -> "Config":
        """Every setting of the model."""
        return self.loaded.config

    @property
    def step(self) -> int:
        """Optimizer steps that the weights were trained for."""
        return self.loaded.step

    @quietly
    def generate(
        self,
        inputs: Sequence[str] | None = None,
        *,
        num_samples: int | None = None,
        data: Location | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        gamma: float | None = None,
        cfg: float | None = None,
        w: float | None = None,
        time_schedule: str | None = None,
        time_shift: float | None = None,
        candidates: int | None = None,
        resample_noise: bool = False,
        seed: int = 0,
        batch_size: int = 64,
        allow_unknown: bool = False,
        sc_cfg: float | None = None,
    ) -> list[str]:
        """Return texts: one per input, or else `num_samples` of them; the same as `elf sample` with these options.

        Args:
          inputs: source texts, for models with sources (translation, summaries). Without them such a model takes the
            first sources of the evaluation split, and a free-text model generates texts.
          num_samples: number of texts (default: all inputs, or the model's settings).
          data: data folder whose sources are used if there are no inputs.
          steps: network steps. sampler: "ode", "sde", "multistep" or "refine". gamma: noise put back by the SDE.
          cfg: guidance scale of the source, 1 is off. w: self-conditioning guidance scale (sc_cfg: its former name).
          time_schedule: "logit_normal", "uniform" or "shifted" (by time_shift).
          candidates: texts drawn per source or template, of which one is kept (docs/sampling.md).
          resample_noise: draw new noise for each pass of "refine" after the first.
            Options that are None come from the model's sampling preset.
          seed: seed of sampling; text n depends on the seed and on n, not on the other texts.
          batch_size: texts sampled at once. allow_unknown: accept inputs that the vocabulary mostly lacks.

        Raises elfcli.InputError if an option or an input is wrong.
        """
        from elfcli.sampling.settings import setting_of_options
        from elfcli.sampling.sources import sources_of, sources_of_texts

        if isinstance(inputs, str):
            raise InputError('inputs: pass a list of texts, such as ["Guten Tag"]')
        for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise InputError(f"{name}: {value} is not in the range x>=1")
        how = {"steps": steps, "sampler": sampler, "gamma": gamma, "cfg": cfg, "w": sc_cfg if w is None else w,
               "time_schedule": time_schedule, "time_shift": time_shift, "candidates": candidates,
               "resample_noise": "true" if resample_noise else None}  # fmt: skip
        setting = setting_of_options(self.config, how)
        if inputs is None:
            sources = sources_of(self.loaded, text_or_none(data), num_samples)
        else:
            sources = sources_of_texts(self.loaded, list(inputs)[:num_samples], allow_unknown)
        return self._sampled(sources, setting, seed, batch_size)

    def fill(self, templates: Sequence[str], **options: Any) -> list[str]:
        """Return templates with their gaps filled, such as "Dear [..], thank you for [..8]."; the known text is copied.

        `[..8]`: a gap of at most eight tokens; `[2..5]`: of two to five. `\\[..]`: these characters. options: those of
        `generate` that say how.

        Raises elfcli.InputError if the model generates from sources, or if a template or an option is wrong.
        """
        return self._filled(templates, (), **options)

    def continue_text(self, prompts: Sequence[str], **options: Any) -> list[str]:
        """Return beginnings with their continuations; options and errors are those of `fill`."""
        return self._filled((), prompts, **options)

    @quietly
    def _filled(self, templates: Sequence[str], prompts: Sequence[str], *, seed: int = 0, batch_size: int = 64,
                allow_unknown: bool = False, **how: Any) -> list[str]:  # fmt: skip
        from elfcli.sampling.gaps import sources_of_templates, templates_of
        from elfcli.sampling.settings import setting_of_options

        found = templates_of(templates, prompts, ("templates", "prompts"))
        sources = sources_of_templates(self.loaded, found, allow_unknown, seed=seed)
        return self._sampled(sources, setting_of_options(self.config, how, fills=True), seed, batch_size)

    def _sampled(self, sources: "Sources", setting: "SamplingSetting", seed: int, batch_size: int) -> list[str]:
        from elfcli.sampling.generate import Options, sample_rows

        return [row["generated"] for row in sample_rows(self.loaded, sources, setting, Options(seed, batch_size))]


def load(
    checkpoint: Location | None = None,
    *,
    at_step: int | None = None,
    raw_weights: bool = False,
    task: str | None = None,
    model: str | None = None,
    config: Locations = None,
    config_style: str | None = None,
    sets: Sets = (),
) -> Model:
    """Return the model of a checkpoint.

    Args:
      checkpoint: a run, an exported folder, a file or folder of the reference or its PyTorch port, or a Hub name
        (default: the newest run in the working folder or runs/, otherwise a published model, as in `elf sample`).
      at_step: step of the checkpoint (default: the newest).
      raw_weights: use the weights themselves, not their moving average.
      task, model: presets for weights that bring no settings. config: settings files. config_style: "elf" or
        "reference". sets: single settings, {"name": value} or ["name=value"].

    Raises elfcli.InputError if there is no such checkpoint, or if it does not fit the settings.
    """
    from elfcli.parallel.agree import broadcast_from_first
    from elfcli.sampling.model import load_model
    from elfcli.weights.newest import chosen_checkpoint

    name = broadcast_from_first(lambda: chosen_checkpoint(text_or_none(checkpoint), task, model))
    layers = {"task": task, "model": model, **settings(config, config_style, sets)}
    loaded = load_model(name, ema=not raw_weights, step=at_step, **layers)
    say(loaded.source.description)
    return Model(loaded)


def train(
    *,
    task: str | None = None,
    model: str | None = None,
    data: Location | None = None,
    output: Location | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    init_from: Location | None = None,
    overfit: int | None = None,
    gaps: bool = False,
    seed: int | None = None,
    config: Locations = None,
    config_style: str | None = None,
    sets: Sets = (),
) -> Path:
    """Train a new run, as `elf train` does; return its folder, which `load` takes.

    Args:
      task, model: presets, such as "toy-de-en" and "ELF-S". data: folder of `tokenize`, or a Hub data set.
      output: run folder to create. steps, minutes, epochs: length of the run, one of them.
      batch_size: examples per batch. lr: peak learning rate. init_from: weights to start from.
      overfit: overfit the first N examples as a sanity check. seed: seed of everything drawn.
      gaps: train on free texts with gaps, so that `Model.fill` works (its mixture: the setting `gaps`).
      config, config_style, sets: as in `load`.

    Raises elfcli.InputError if the input is wrong, before anything is written; elfcli.Stopped after an interrupt, which
    saves first: `resume` continues.
    """
    began = time.monotonic()
    if minutes is not None and (steps is not None or epochs is not None):
        raise InputError("--minutes, --steps and --epochs each set the length of the run: pass one of them")
    from elfcli.config.schema import GAP_SHARES
    from elfcli.diagnosis.overfit import report_overfit
    from elfcli.parallel.agree import first_process_first
    from elfcli.recipe.apply import requested_settings
    from elfcli.recipe.defaults import with_output
    from elfcli.training.start import start_run

    flags = {
        "data_path": text_or_none(data), "output_dir": text_or_none(output), "steps": steps, "epochs": epochs,
        "minutes": minutes, "overfit_examples": overfit, "batch_size": batch_size, "lr": lr, "seed": seed,
        "init_from": text_or_none(init_from), "gaps": GAP_SHARES if gaps else None,
    }  # fmt: skip
    layers = settings(config, config_style, sets)
    if any(text.replace(" ", "").startswith(("gaps=", "data.gaps=")) for text in layers["sets"]):
        flags["gaps"] = None
    resolved = requested_settings(task=task, model=model, flags=flags, **layers)
    with first_process_first():
        resolved, folder = with_output(resolved)
    start_run(resolved, folder, began=began)
    if resolved.config.training.overfit_examples is not None:
        report_overfit(folder)
    return folder


def resume(run: Location, *, fallback: bool = False, other_data: bool = False, sets: Sets = ()) -> Path:
    """Continue a run from its newest checkpoint, as if it had never stopped; return its folder.

    Args:
      run: run folder of `train`, or a folder of `elf distill`.
      fallback: if the newest checkpoint is damaged, continue from the newest intact one.
      other_data: continue even if the data is not what the run was trained on.
      sets: settings to change, such as {"steps": 2000}.
    """
    from elfcli.parallel.agree import broadcast_from_first
    from elfcli.runs.rounds import is_distilled, remaining_rounds

    folder = Path(run)
    changes: dict[str, Any] = {
        "sets": settings(None, None, sets)["sets"],
        "fallback": fallback,
        "other_data": other_data,
    }
    if broadcast_from_first(lambda: is_distilled(folder)):
        from elfcli.training.distill import train_rounds

        rounds = broadcast_from_first(lambda: remaining_rounds(folder))
        if not rounds:
            say("Training is already complete: every round is finished")
        train_rounds(folder, rounds, **changes)
    else:
        from elfcli.training.start import resume_run

        resume_run(folder, **changes)
    return folder


def evaluate(
    checkpoint: Location | Model | None = None,
    *,
    task: str | None = None,
    model: str | None = None,
    data: Location | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    protocol: str | None = None,
    output: Location | None = None,
    overwrite: bool = False,
    config: Locations = None,
    config_style: str | None = None,
    sets: Sets = (),
) -> list[dict]:
    """Sample a task's evaluation split with every setting of its preset and score it, as `elf eval` does.

    Args:
      checkpoint: as in `load`, or a model that it returned. task, model, config, config_style, sets: as in `load`.
      data: evaluation data (default: the run's own). num_samples: number of texts per setting.
      seed: seed of sampling. seeds: several seeds, for mean and standard deviation. batch_size: texts sampled at once.
      protocol: of BLEU and ROUGE, `auto`, `paper`, `sacrebleu` or `unicode` (default: the setting).
      output: folder for samples and results (default: in the run). overwrite: replace existing results.

    Returns one result per sampling setting, as `elf eval --json` writes them: {"name", "setting", "scores": [...]},
    each score with its value, interval, signature, provenance and details.
    """
    from elfcli.evaluation.run import check_results_folder, evaluate_preset
    from elfcli.scoring.comparison import seeds_of

    wanted = seeds_of(seed, None if seeds is None else ",".join(map(str, seeds)))
    folder = None if output is None else Path(output)
    check_results_folder(folder)
    if not isinstance(checkpoint, Model):
        layers = {"task": task, "model": model, "config": config, "config_style": config_style, "sets": sets}
        checkpoint = load(checkpoint, **layers)  # type: ignore[arg-type]
    return evaluate_preset(
        checkpoint.loaded, wanted, data=text_or_none(data), num_samples=num_samples, batch_size=batch_size,
        protocol=protocol, output=folder, overwrite=overwrite,
    )  # fmt: skip


def tokenize(
    output: Location | None = None,
    *,
    input: Locations = None,
    validation: Locations = None,
    source: Locations = None,
    target: Locations = None,
    validation_source: Locations = None,
    validation_target: Locations = None,
    task: str | None = None,
    seed: int = 0,
    text_key: str | None = None,
    source_key: str | None = None,
    target_key: str | None = None,
    separator: str | None = None,
    quoting: str | None = None,
    no_header: bool = False,
    encoding: str | None = None,
    tokenizer: Location | None = None,
    train_tokenizer: int | None = None,
    keep_whitespace: bool = False,
    allow_unknown: bool = False,
    pack: int | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> "Summary":
    """Tokenize text files, or a built-in task, into a data folder that `train` reads, as `elf tokenize` does.

    Args:
      output: data folder (default: a folder in data/ named after its content).
      input, validation: files of text, JSON lines, CSV, TSV or Parquet; globs; addresses; splits of Hub data sets.
      source, target, validation_source, validation_target: files of lines that belong together, instead of `input`.
      task: a built-in task instead of files. seed: seed of a generated task.
      text_key, source_key, target_key: columns; `a.b` is the field b of an object a.
      separator, quoting, no_header, encoding: how tables and texts are read, as the options of `elf tokenize`.
      tokenizer: folder or Hub name. train_tokenizer: train a SentencePiece tokenizer of this size on the input.
      keep_whitespace: train one that keeps white space. allow_unknown: accept many tokens that are unknown.
      pack: join texts into sequences of this length. workers: number of processes. skip_bad: skip and count malformed
        lines. overwrite: replace an existing data folder.

    Returns what was written: `output`, `keys`, `vocab_size`, and per split the examples and their lengths.
    """
    from elfcli.corpus.files import layout_of
    from elfcli.corpus.public import default_folder
    from elfcli.corpus.tokenize import Job
    from elfcli.corpus.tokenize import tokenize as write

    inputs, sources = paths(input), paths(source)
    layout = layout_of(separator, quoting, no_header, encoding)
    if output is None:
        output = default_folder(task, [*inputs, *sources], text_or_none(tokenizer) or train_tokenizer)
        say(f"no --output: writing the data to {output}")
    job = Job(
        Path(output), inputs=inputs, validation=paths(validation), sources=sources, targets=paths(target),
        validation_sources=paths(validation_source), validation_targets=paths(validation_target), layout=layout,
        task=task, seed=seed, text_key=text_key, source_key=source_key, target_key=target_key,
        tokenizer=text_or_none(tokenizer), train_tokenizer=train_tokenizer, keep_whitespace=keep_whitespace,
        allow_unknown=allow_unknown, pack=pack, skip_bad=skip_bad, overwrite=overwrite, workers=workers,
    )  # fmt: skip
    with stages() as progress:
        return write(job, progress)


def text_or_none(location: Location | None) -> str | None:
    """Return a path or name as text."""
    return None if location is None else str(location)


def paths(locations: Locations) -> tuple[str, ...]:
    """Return one path or several as texts."""
    if locations is None:
        return ()
    return (str(locations),) if isinstance(locations, str | Path) else tuple(map(str, locations))


def settings(config: Locations, config_style: str | None, sets: Sets) -> dict[str, Any]:
    """Return `files`, `style` and `sets` as `resolve` takes them."""
    from elfcli.config.render import literal

    if isinstance(sets, str):
        raise InputError(f'sets: pass {{"name": value}} or ["name=value"], not the text {sets!r}')
    if isinstance(sets, Mapping):
        sets = [f"{name}={value if isinstance(value, str) else literal(value)}" for name, value in sets.items()]
    return {"files": paths(config), "style": config_style, "sets": list(sets)}
