"""`elf eval-gaps`: scores of filled gaps."""

from pathlib import Path
from typing import Annotated

from elfcli.cli import options as o

SAMPLES = "Samples of `elf sample --template`: rows with `template`, `gaps`, and `reference` or `reference_gaps`."
DATA = "Data folder whose training texts give the bigram baseline and the n-gram judge."
MODEL = "Judge of perplexity instead: a GPT-2, Llama or Qwen, as a folder or Hub name."


@o.several_processes
def eval_gaps(
    samples: Annotated[Path, o.typer.Argument(metavar="F.jsonl", help=SAMPLES)],
    data: Annotated[str | None, o.option("--data", "DIR", DATA)] = None,
    model: Annotated[str | None, o.option("--model", "DIR_OR_NAME", MODEL)] = None,
    protocol: o.RougeProtocolOption = "auto",
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score filled gaps: exact match, BLEU, ROUGE-L, length, perplexity of the whole, and two baselines.

    Example: elf eval-gaps samples.jsonl --data data/my
    """
    from elfcli.cli.output import check_json, show_report
    from elfcli.outputs import write_result
    from elfcli.scoring import metric
    from elfcli.scoring.gaps import gap_rows
    from elfcli.scoring.judge import NGRAM, Judge
    from elfcli.scoring.protocol import AUTO, check_protocol
    from elfcli.scoring.report import reports
    from elfcli.scoring.samples_file import read_meta, read_samples
    from elfcli.scoring.score import ScoreOptions, Texts
    from elfcli.ui.progress import is_first_process

    gaps = metric("gaps")
    check_protocol(protocol, gaps.name, (AUTO, *gaps.protocols))
    check_json(json_file, overwrite)
    rows = read_samples(samples)
    gap_rows(rows, str(samples))
    texts = Texts([row["generated"] for row in rows], None, None, read_meta(samples), rows=rows)
    judge = Judge(model or NGRAM, data=data) if data or model else None
    found = gaps.compute(texts, ScoreOptions(protocol, judge=judge)).as_dict()
    if not is_first_process():
        return
    (score,) = reports([found], texts)
    write_result(json_file, score, overwrite)
    show_report([("filled", [score])])
