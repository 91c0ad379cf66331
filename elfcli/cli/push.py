"""`elf push-to-hub`: a trained model for others, on the Hugging Face Hub."""

from typing import Annotated

import typer

from elfcli.cli import options as o

CHECKPOINTS = "Weights of every kept checkpoint, or of the newest."


def push_to_hub(
    run: Annotated[str, o.run_argument("RUN", "Run folder, or a folder of `elf export`.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository; created if it does not exist.")],
    private: Annotated[bool, o.option("--private", "", "Make the repository private.")] = False,
    revision: Annotated[str | None, o.option("--revision", "NAME", "Branch; created if it does not exist.")] = None,
    checkpoints: Annotated[str, o.option("--checkpoints", "all|last", CHECKPOINTS)] = "last",
    license_: o.LicenseOption = "mit",
) -> None:
    """Publish a run on the Hugging Face Hub: weights, settings, tokenizer, sampling presets and a model card.

    Example: elf push-to-hub runs/my my-name/my-model --private
    """
    from elfcli.errors import InputError, did_you_mean
    from elfcli.ui.progress import say

    if checkpoints not in ("all", "last"):
        near = did_you_mean(checkpoints, ("all", "last"))
        raise InputError(f"--checkpoints {checkpoints}: expected all or last{near}")

    from elfcli.publishing.export import ExportOptions
    from elfcli.publishing.push import push

    options = ExportOptions(license=license_, steps="all" if checkpoints == "all" else ())
    address = push(run, repo, private=private, revision=revision, options=options, report=say)
    at = f"@{revision}" if revision else ""
    say(f"done: sample with `elf sample {repo}{at}`")
    typer.echo(address)
