"""`elf eval-ppl`: generative perplexity of generated text."""

from pathlib import Path
from typing import Annotated, Literal

from elfcli.cli import options as o

MODEL = "Judge: a GPT-2, Llama or Qwen, as a folder or Hub name; ngram: a trigram model of --data."
DATA = "Data folder whose training texts the n-gram judge counts; makes it the default."
TOKENIZER = "Tokenizer of the judge (default: the one in its folder)."
MAX_LENGTH = "Tokens at which texts are truncated."
REFERENCES = "Reference texts to score with the same judge, for comparison."


@o.several_processes
def eval_ppl(
    samples: o.SamplesArgument,
    model: Annotated[str | None, o.option("--model", "DIR_OR_NAME", MODEL)] = None,
    data: Annotated[str | None, o.option("--data", "DIR", DATA)] = None,
    tokenizer: Annotated[str | None, o.option("--tokenizer", "DIR_OR_NAME", TOKENIZER)] = None,
    batch_size: Annotated[int, o.option("--batch-size", "N", "Texts scored at once.", min=1)] = 8,
    max_length: Annotated[int, o.option("--max-length", "N", MAX_LENGTH, min=2)] = 1024,
    dtype: Annotated[
        Literal["float32", "bfloat16"], o.option("--dtype", "", "Arithmetic; bfloat16 is faster on accelerators.")
    ] = "float32",
    references: Annotated[Path | None, o.option("--references", "FILE", REFERENCES)] = None,
    reference_key: o.ReferenceKeyOption = None,
    protocol: o.ProtocolOption = "paper",
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by its perplexity under a language model, and by its unigram entropy (nats).

    Examples: elf eval-ppl samples.jsonl --model gpt2-large --references valid.txt

    elf eval-ppl samples.jsonl --data data/my
    """
    from elfcli.cli.output import check_json, show_report
    from elfcli.outputs import write_result
    from elfcli.scoring import metric
    from elfcli.scoring.judge import NGRAM, Judge
    from elfcli.scoring.protocol import check_protocol
    from elfcli.scoring.report import low_entropy, reports
    from elfcli.scoring.samples_file import read_meta, read_real, read_samples
    from elfcli.scoring.score import ScoreOptions, Texts
    from elfcli.ui.progress import is_first_process, progress, say

    ppl = metric("ppl")
    check_protocol(protocol, ppl.name, ppl.protocols)
    check_json(json_file, overwrite)
    rows = read_samples(samples)
    generated = [row["generated"] for row in rows]
    own = [row["reference"] for row in rows] if all(isinstance(row.get("reference"), str) for row in rows) else None
    real = own if references is None else read_real(references, len(generated), reference_key)
    texts = Texts(generated, own, real, read_meta(samples))
    judge = Judge(model or (NGRAM if data else Judge.model), tokenizer, batch_size, max_length, dtype, data)
    with progress("eval-ppl", len(generated)) as update:
        found = ppl.compute(texts, ScoreOptions(judge=judge, update=update)).as_dict()
    if not is_first_process():
        return
    (score,) = reports([found], texts)
    write_result(json_file, score, overwrite)
    if found["max_length"] < max_length:
        say(f"texts were truncated at {found['max_length']} tokens, the window of {judge.model}, not at {max_length}")
    if found["num_skipped_empty"]:
        say(f"{found['num_skipped_empty']} empty texts were skipped")
    if line := low_entropy(score):
        say(line)
    show_report([("generated", [score])])
