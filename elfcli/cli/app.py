"""The `elf` command: registers the subcommands, one thin module each, which import heavy packages when they run."""

from typing import Annotated

import typer

from elfcli import __version__
from elfcli.cli import (
    config,
    demo,
    eval_bleu,
    eval_ppl,
    eval_rouge,
    evaluate,
    export,
    plan,
    push,
    resume,
    sample,
    sweep,
    tasks,
    tokenize,
    train,
)
from elfcli.cli.options import Grouped

app = typer.Typer(
    name="elf",
    cls=Grouped,
    help="Train, sample and score continuous diffusion language models (Embedded Language Flows).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # with Rich's panels `elf --help` takes three times as long
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"elf {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and what libraries log; anywhere on the line.")
    ] = False,
) -> None:
    pass


# Panels, in the order of `elf --help`.
START = "Start here"
DATA = "Data"
TRAINING = "Training"
SAMPLING = "Sampling and scoring"
SETTINGS = "Settings"
SHARING = "Sharing"

app.command("demo", rich_help_panel=START)(demo.demo)
app.command("tasks", rich_help_panel=START)(tasks.tasks)
app.command("tokenize", rich_help_panel=DATA)(tokenize.tokenize)
app.command("plan", rich_help_panel=TRAINING)(plan.plan)
app.command("train", rich_help_panel=TRAINING)(train.train)
app.command("resume", rich_help_panel=TRAINING)(resume.resume)
app.command("sample", rich_help_panel=SAMPLING)(sample.sample)
app.command("eval", rich_help_panel=SAMPLING)(evaluate.evaluate)
app.command("sweep", rich_help_panel=SAMPLING)(sweep.sweep)
app.command("eval-bleu", rich_help_panel=SAMPLING)(eval_bleu.eval_bleu)
app.command("eval-rouge", rich_help_panel=SAMPLING)(eval_rouge.eval_rouge)
app.command("eval-ppl", rich_help_panel=SAMPLING)(eval_ppl.eval_ppl)
app.add_typer(config.app, name="config", rich_help_panel=SETTINGS)
app.command("export", rich_help_panel=SHARING)(export.export)
app.command("push-to-hub", rich_help_panel=SHARING)(push.push_to_hub)
