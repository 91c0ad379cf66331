"""The `elf` command: registers the commands, one thin module each; they import heavy packages when they run."""

from typing import Annotated, Any

import typer

from elfcli import __version__
from elfcli.cli import (
    config,
    demo,
    distill,
    doctor,
    eval_bleu,
    eval_gaps,
    eval_ppl,
    eval_rouge,
    evaluate,
    export,
    plan,
    push,
    report,
    resume,
    runs,
    sample,
    sweep,
    tasks,
    tokenize,
    train,
)
from elfcli.cli.options import Grouped, option

app = typer.Typer(
    name="elf",
    cls=Grouped,
    help="Train, sample and score continuous diffusion language models (Embedded Language Flows).",
    no_args_is_help=True,
    rich_markup_mode=None,  # with Rich's panels `elf --help` takes three times as long
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"elf {__version__}")
        raise typer.Exit


VERSION = option("--version", "", "Print the version and exit.", callback=_print_version, is_eager=True)
DEBUG = option("--debug", "", "Show tracebacks and the logs of libraries; anywhere on the line.")


@app.callback()
def root(version: Annotated[bool, VERSION] = False, debug: Annotated[bool, DEBUG] = False) -> None:
    """Take the options of the command itself."""


COMMANDS: dict[str, dict[str, Any]] = {
    "Start here": {"demo": demo.demo, "tasks": tasks.tasks},
    "Data": {"tokenize": tokenize.tokenize},
    "Training": {"plan": plan.plan, "train": train.train, "resume": resume.resume, "distill": distill.distill},
    "Sampling and scoring": {
        "sample": sample.sample,
        "eval": evaluate.evaluate,
        "sweep": sweep.sweep,
        "doctor": doctor.doctor,
        "eval-bleu": eval_bleu.eval_bleu,
        "eval-rouge": eval_rouge.eval_rouge,
        "eval-ppl": eval_ppl.eval_ppl,
        "eval-gaps": eval_gaps.eval_gaps,
    },
    "Inspecting runs": {"runs": runs.runs, "report": report.report},
    "Settings": {"config": config.app},
    "Sharing": {"export": export.export, "push-to-hub": push.push_to_hub},
}
"""Commands by the panel of `elf --help` that lists them, in its order."""

for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)
