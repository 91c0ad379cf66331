"""`elf eval-ppl`: generative perplexity of generated text."""

from typing import Annotated

import typer

from elfcli.cli import options as o


@o.several_processes
def eval_ppl(
    samples: o.SamplesArgument,
    model: Annotated[str, o.option("--model", "DIR_OR_NAME", "GPT-2: folder or Hub name.")] = "gpt2-large",
    tokenizer: Annotated[
        str | None, o.option("--tokenizer", "DIR_OR_NAME", "Its tokenizer; by default the one beside it.")
    ] = None,
    batch_size: Annotated[int, o.option("--batch-size", "N", "Texts scored at once.", min=1)] = 8,
    max_length: Annotated[int, o.option("--max-length", "N", "Tokens at which texts are cut.", min=2)] = 1024,
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by its perplexity under GPT-2, and by its unigram entropy (nats)."""
    from elfcli.evaluation.samples import read_samples
    from elfcli.outputs import check_output_file, write_result
    from elfcli.parallel.agree import by_first
    from elfcli.ui.progress import is_first_process, progress, say
    from elfcli.ui.table import table

    by_first(lambda: check_output_file(json_file, overwrite, "--json"))
    texts = [row["generated"] for row in read_samples(samples)]

    from elfcli.evaluation.perplexity import perplexity

    with progress("eval-ppl", len(texts)) as update:
        result = perplexity(
            texts, model=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length, update=update
        )
    if not is_first_process():
        return
    write_result(json_file, result.as_dict(), overwrite)
    if result.max_length < max_length:
        say(f"texts were cut at {result.max_length} tokens, the window of {model}, not at {max_length}")
    if result.num_skipped_empty:
        say(f"{result.num_skipped_empty} empty texts were skipped")
    rows = [("perplexity", result.ppl), ("entropy", result.entropy)]
    protocol = f"{model}, {result.num_tokens:,} tokens, texts cut at {result.max_length}"
    typer.echo(table(rows, result.num_samples, protocol))
