"""A run's logged curves, as the doctor reads them."""

from elfcli.diagnosis.checks import History
from elfcli.runs.folder import read_metrics
from elfcli.runs.length import run_length
from elfcli.sampling.model import LoadedModel


def history_of(model: LoadedModel, examples: int) -> History | None:
    """Return what the run's settings and its log up to the checkpoint say; None for weights that are not of a run."""
    config = model.config
    if model.source.kind != "run" or model.source.folder is None:
        return None
    rows = [row for row in read_metrics(model.source.folder) if row["step"] <= model.step and "loss" in row]
    muon = config.optimization.optimizer == "muon"
    return History(
        lr=config.peak_lr,
        update=config.peak_lr * (1 if muon else config.network.hidden_size**0.5),
        losses=[row["loss"] for row in rows],
        fresh=config.training.init_from is None,
        spikes=sum(bool(row.get("spike")) for row in rows),
        skipped=sum(row.get("skipped", 0) for row in rows),
        done=model.step,
        planned=run_length(config, examples).total_steps,
        decay=config.optimization.ema_decay,
    )
