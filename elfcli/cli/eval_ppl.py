"""`elf eval-ppl`: generative perplexity of generated text."""

from pathlib import Path
from typing import Annotated, Literal

from elfcli.cli import options as o


@o.several_processes
def eval_ppl(
    samples: o.SamplesArgument,
    model: Annotated[
        str, o.option("--model", "DIR_OR_NAME", "GPT-2, Llama or Qwen: folder or Hub name.")
    ] = "gpt2-large",
    tokenizer: Annotated[
        str | None, o.option("--tokenizer", "DIR_OR_NAME", "Its tokenizer; by default the one beside it.")
    ] = None,
    batch_size: Annotated[int, o.option("--batch-size", "N", "Texts scored at once.", min=1)] = 8,
    max_length: Annotated[int, o.option("--max-length", "N", "Tokens at which texts are cut.", min=2)] = 1024,
    dtype: Annotated[
        Literal["float32", "bfloat16"], o.option("--dtype", "", "Arithmetic; bfloat16 is faster on accelerators.")
    ] = "float32",
    references: Annotated[Path | None, o.option("--references", "FILE", "Real text, to stand beside.")] = None,
    reference_key: o.ReferenceKeyOption = None,
    protocol: o.ProtocolOption = "paper",
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by its perplexity under a language model, and by its unigram entropy (nats)."""
    from elfcli.cli.output import show_report
    from elfcli.outputs import check_output_file, write_result
    from elfcli.parallel.agree import broadcast_from_first
    from elfcli.scoring.protocol import check_protocol
    from elfcli.scoring.report import Texts, low_entropy, reports
    from elfcli.scoring.samples_file import read_real, read_samples
    from elfcli.scoring.samples_meta import read_meta
    from elfcli.ui.progress import is_first_process, progress, say

    check_protocol(protocol, "ppl")
    broadcast_from_first(lambda: check_output_file(json_file, overwrite, "--json"))
    rows = read_samples(samples)
    texts = [row["generated"] for row in rows]
    own = [row["reference"] for row in rows] if all(isinstance(row.get("reference"), str) for row in rows) else None
    real = own if references is None else read_real(references, len(texts), reference_key)

    from elfcli.scoring.judge import Judge
    from elfcli.scoring.perplexity import perplexity, real_text_score

    judge = Judge(model, tokenizer, batch_size, max_length, dtype)
    with progress("eval-ppl", len(texts)) as update:
        result = perplexity(texts, judge, update)
    found = result.as_dict()
    if any(map(str.strip, real or ())):
        found["real"] = real_text_score(tuple(real or ()), judge)
    if not is_first_process():
        return
    (score,) = reports([found], Texts(texts, own, real, read_meta(samples)))
    write_result(json_file, score, overwrite)
    if result.max_length < max_length:
        say(f"texts were cut at {result.max_length} tokens, the window of {model}, not at {max_length}")
    if result.num_skipped_empty:
        say(f"{result.num_skipped_empty} empty texts were skipped")
    if line := low_entropy(score):
        say(line)
    show_report([("generated", [score])])
