"""A run's logged curves, as the doctor reads them."""


def history_of(model, examples: int):
    """What the run's settings and its log up to the checkpoint say; None for weights from elsewhere."""
    from elfcli.diagnosis.checks import History
    from elfcli.runs.folder import read_metrics
    from elfcli.runs.length import run_length

    if model.source.kind != "run":
        return None
    config = model.config
    rows = [row for row in read_metrics(model.source.folder) if row["step"] <= model.step and "loss" in row]
    lr = config.peak_lr
    return History(
        lr=lr,
        update=lr * (1 if config.optimization.optimizer == "muon" else config.network.hidden_size**0.5),
        losses=[row["loss"] for row in rows],
        fresh=config.training.init_from is None,
        spikes=sum(bool(row.get("spike")) for row in rows),
        skipped=sum(row.get("skipped", 0) for row in rows),
        done=model.step,
        planned=run_length(config, examples).total_steps,
        decay=config.optimization.ema_decay,
    )
