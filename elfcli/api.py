"""What commands do, as functions: `import elfcli; elfcli.load("RUN").generate(["Guten Tag"], steps=32)`.

Options have the names of the commands. What a command prints goes to the logger `elf` instead. Errors are
`elfcli.InputError` (what was given is wrong), `elfcli.Stopped` (asked to stop, and saved) and `elfcli.ElfError`.
Several processes: call `elfcli.parallel.join.join()` first, in each of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from elfcli.errors import InputError
from elfcli.ui.progress import logged

if TYPE_CHECKING:
    from elfcli.config.schema import Config
    from elfcli.corpus.tokenize import Summary
    from elfcli.sampling.model import LoadedModel as Loaded

Place = str | Path
Places = Place | Sequence[Place] | None
Sets = Mapping[str, Any] | Sequence[str]
F = TypeVar("F", bound=Callable)


def quietly(function: F) -> F:
    """The function, with the logger `elf` in place of the terminal."""

    @wraps(function)
    def inner(*args: Any, **options: Any) -> Any:
        with logged():
            return function(*args, **options)

    return inner  # type: ignore[return-value]


@dataclass(frozen=True)
class Model:
    """A trained model, ready to sample from; `elfcli.load` makes it. loaded: weights, encoder, tokenizer, settings."""

    loaded: "Loaded"

    @property
    def config(self) -> "Config":
        """Every setting of the model."""
        return self.loaded.config

    @property
    def step(self) -> int:
        """Optimiser steps that the weights were trained for."""
        return self.loaded.step

    @quietly
    def generate(
        self,
        inputs: Sequence[str] | None = None,
        *,
        num_samples: int | None = None,
        data: Place | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        gamma: float | None = None,
        cfg: float | None = None,
        sc_cfg: float | None = None,
        time_schedule: str | None = None,
        time_shift: float | None = None,
        candidates: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> list[str]:
        """Texts, equal to what `elf sample` writes with the same options: one per input, else `num_samples` of them.

        Args:
          inputs: source texts, for models that have sources (translation, summaries). Without them such a model takes
            the first sources of the evaluation split, and one of free texts draws texts.
          num_samples: number of texts; by default all inputs, or what the model's settings say.
          data: data folder whose sources are sampled where there are no inputs.
          steps: network steps. sampler: "ode" or "sde". gamma: noise put back by the SDE.
          cfg: guidance scale of the source, 1 is off. sc_cfg: self-conditioning guidance scale.
          time_schedule: "logit_normal", "uniform" or "shifted" (by time_shift).
          candidates: texts drawn per source, of which the one most like the others is kept.
            What is None comes from the model's sampling preset.
          seed: of the draws; text n depends on the seed and on n, not on the other texts.
          batch_size: texts sampled at once.

        Raises elfcli.InputError where an option or an input is wrong.
        """
        from elfcli.sampling.generate import Options, sample_rows
        from elfcli.sampling.settings import SAMPLING_OPTIONS, one_setting, one_value_each
        from elfcli.sampling.sources import sources_of, sources_of_texts

        if isinstance(inputs, str):
            raise InputError('inputs: give a list of texts, such as ["Guten Tag"]')
        for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise InputError(f"{name}: {value} is not in the range x>=1")
        values = (sampler, steps, gamma, cfg, sc_cfg, time_schedule, time_shift, candidates)
        texts = {
            name: None if value is None else str(value) for name, value in zip(SAMPLING_OPTIONS, values, strict=True)
        }
        setting = one_setting(self.config, one_value_each(texts))
        if inputs is None:
            sources = sources_of(self.loaded, None if data is None else str(data), num_samples)
        else:
            sources = sources_of_texts(self.loaded, list(inputs)[:num_samples])
        rows = sample_rows(self.loaded, sources, setting, Options(seed, batch_size))
        return [row["generated"] for row in rows]


@quietly
def load(
    checkpoint: Place | None = None,
    *,
    at_step: int | None = None,
    raw_weights: bool = False,
    task: str | None = None,
    model: str | None = None,
    config: Places = None,
    config_style: str | None = None,
    sets: Sets = (),
) -> Model:
    """The model of a checkpoint.

    Args:
      checkpoint: a run, an exported folder, a file or folder of the reference or its PyTorch port, or a Hub name; by
        default the newest run here, else what is published, as in `elf sample`.
      at_step: the checkpoint of this step; by default the newest.
      raw_weights: the weights themselves, not their moving average.
      task, model: presets for weights that bring no settings. config: settings files. config_style: "elf" or
        "reference". sets: single settings, {"name": value} or ["name=value"].

    Raises elfcli.InputError where there is no such checkpoint, or where it and the settings do not fit each other.
    """
    from elfcli.cli.evaluate import load as by_name

    given = {"task": task, "model": model, **settings(config, config_style, sets)}
    name = None if checkpoint is None else str(checkpoint)
    return Model(by_name(name, ema=not raw_weights, step=at_step, **given)[1])


@quietly
def train(
    *,
    task: str | None = None,
    model: str | None = None,
    data: Place | None = None,
    output: Place | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    init_from: Place | None = None,
    overfit: int | None = None,
    seed: int | None = None,
    config: Places = None,
    config_style: str | None = None,
    sets: Sets = (),
) -> Path:
    """Trains a new run, as `elf train` does; returns its folder, which `load` takes.

    Args:
      task, model: presets, such as "toy-de-en" and "ELF-S". data: folder of `tokenize`, or a Hub data set.
      output: the run folder to make. steps, minutes, epochs: length of the run, one of them.
      batch_size: examples per batch. lr: peak learning rate. init_from: weights to start from.
      overfit: learn the first so many examples by heart. seed: of everything drawn.
      config, config_style, sets: as of `load`.

    Raises elfcli.InputError where the input is wrong, before anything is written; elfcli.Stopped after an interrupt,
    which saves first: `resume` goes on.
    """
    from elfcli.cli.train import train as command

    given = settings(config, config_style, sets)
    where, start = None if data is None else str(data), None if init_from is None else str(init_from)
    return undecorated(command)(
        task=task, model=model, data=where, output=None if output is None else Path(output), steps=steps,
        minutes=minutes, epochs=epochs, batch_size=batch_size, lr=lr, init_from=start, overfit=overfit, seed=seed,
        config=given["files"], config_style=config_style, sets=given["sets"],
    )  # fmt: skip


@quietly
def resume(run: Place, *, fallback: bool = False, other_data: bool = False, sets: Sets = ()) -> Path:
    """Continues a run from its newest checkpoint, as if it had never stopped; returns its folder.

    Args:
      fallback: if the newest checkpoint is damaged, go on from the newest intact one.
      other_data: go on though the data is not what the run was trained on so far.
      sets: settings to change, such as {"steps": 2000}.
    """
    from elfcli.cli.resume import resume as command

    given = settings(None, None, sets)["sets"]
    undecorated(command)(run=Path(run), fallback=fallback, other_data=other_data, sets=given)
    return Path(run)


@quietly
def evaluate(
    checkpoint: Place | Model | None = None,
    *,
    task: str | None = None,
    model: str | None = None,
    data: Place | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    output: Place | None = None,
    overwrite: bool = False,
    config: Places = None,
    config_style: str | None = None,
    sets: Sets = (),
) -> list[dict]:
    """Samples a task's evaluation split with every setting of its preset and scores it, as `elf eval` does.

    Args:
      checkpoint: as of `load`, or a model that it returned. task, model, config, config_style, sets: as of `load`.
      data: evaluation data; by default the run's own. num_samples: texts of each setting.
      seed: of the draws. seeds: several, for mean and spread. batch_size: texts sampled at once.
      output: folder for samples and results; by default in the run. overwrite: replace results that are there.

    Returns one result per sampling setting, as `elf eval --json` writes them: {"name", "setting", "scores": [...]},
    each score with its value, interval, signature, what made it and details.
    """
    from elfcli.cli.output import check_outputs, without_draws
    from elfcli.evaluation.run import evaluated
    from elfcli.scoring.seeds import seeds_of

    wanted = seeds_of(seed, None if seeds is None else ",".join(map(str, seeds)))
    folder = None if output is None else Path(output)
    check_outputs(None, folder, overwrite)
    given = {"task": task, "model": model, "config": config, "config_style": config_style, "sets": sets}
    ready = checkpoint if isinstance(checkpoint, Model) else load(checkpoint, **given)  # type: ignore[arg-type]
    where = None if data is None else str(data)
    return without_draws(evaluated(ready.loaded, wanted, where, num_samples, batch_size, folder, overwrite))


@quietly
def tokenize(
    output: Place | None = None,
    *,
    input: Places = None,
    validation: Places = None,
    task: str | None = None,
    seed: int = 0,
    text_key: str | None = None,
    source_key: str | None = None,
    target_key: str | None = None,
    tokenizer: Place | None = None,
    train_tokenizer: int | None = None,
    pack: int | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> "Summary":
    """Tokenizes text files, or a built-in task, into a data folder that `train` reads, as `elf tokenize` does.

    Args:
      output: the data folder; by default data/ and what it holds.
      input, validation: files of text, JSON lines, CSV, TSV or Parquet; globs. task: a task instead of files.
      seed: of a built-in task. text_key, source_key, target_key: columns. tokenizer: folder or Hub name.
      train_tokenizer: train a SentencePiece tokenizer of so many pieces on the input.
      pack: join texts into sequences of this length. workers: processes. skip_bad: count malformed lines instead of
        stopping. overwrite: replace a data folder that is there.

    Returns what was written: `output`, `keys`, `vocab_size`, and per split the examples and their lengths.
    """
    from elfcli.cli.tokenize import tokenized

    return tokenized(
        None if output is None else Path(output), workers, inputs=many(input), validation=many(validation), task=task,
        seed=seed, text_key=text_key, source_key=source_key, target_key=target_key,
        tokenizer=None if tokenizer is None else str(tokenizer), train_tokenizer=train_tokenizer, pack=pack,
        skip_bad=skip_bad, overwrite=overwrite,
    )  # fmt: skip


def undecorated(command: Callable) -> Callable:
    """A command without the options of several processes."""
    return command.__wrapped__  # type: ignore[attr-defined]


def many(places: Places) -> tuple[str, ...]:
    """One path or several as texts."""
    if places is None:
        return ()
    return (str(places),) if isinstance(places, str | Path) else tuple(map(str, places))


def settings(config: Places, config_style: str | None, sets: Sets) -> dict[str, Any]:
    """`files`, `style` and `sets` as `resolve` takes them."""
    from elfcli.config.render import literal

    if isinstance(sets, str):
        raise InputError(f'sets: give {{"name": value}} or ["name=value"], not the text {sets!r}')
    if isinstance(sets, Mapping):
        sets = [f"{name}={value if isinstance(value, str) else literal(value)}" for name, value in sets.items()]
    return {"files": many(config), "style": config_style, "sets": list(sets)}
