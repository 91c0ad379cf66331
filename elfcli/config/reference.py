"""Detects settings files of the reference (lillian039/ELF) and interprets them.

Such a file is flat YAML. Settings that it leaves out have the reference's defaults, its `batch_size` counts per
device, and its `warmup_steps` counts micro-batches.
"""

from pathlib import Path
from typing import Any

from elfcli.config.files import SettingsFile
from elfcli.config.schema import SECTIONS, SamplingPreset

CONFIG_STYLES = ("elf", "reference")
DEFAULT_LAYER = "reference default"
"""Origin of values that a reference file leaves out."""
PER_DEVICE = "config file, per device"
"""Origin of a batch_size that is not yet multiplied by the number of devices."""

KEYS = frozenset(
    """
    data_path eval_data_path max_length max_input_length pad_token tokenizer_name encoder_model_name
    encoder_checkpoint latent_mean latent_std model bottleneck_dim num_time_tokens num_self_cond_cfg_tokens
    num_model_mode_tokens attn_dropout proj_dropout denoiser_p_mean denoiser_p_std denoiser_noise_scale t_eps
    time_schedule decoder_prob decoder_noise_scale decoder_p_mean decoder_p_std label_drop_prob self_cond_prob
    self_cond_cfg_min self_cond_cfg_max epochs warmup_epochs warmup_steps batch_size global_batch_size lr blr min_lr
    lr_schedule weight_decay optimizer adam_b1 adam_b2 grad_accum_steps ema_decay1 sampling_configs_path num_samples
    online_eval eval_ppl_model eval_ppl_batch_size eval_ppl_max_length log_freq eval_freq save_freq output_dir
    hf_repo_id resume use_wandb wandb_project wandb_entity wandb_run_name wandb_tag wandb_resume seed num_workers
    """.split()  # noqa: SIM905
)
DEFAULTS: dict[str, Any] = {
    "max_length": 128, "max_input_length": 0, "latent_std": 1.0, "model": "ELF-B", "denoiser_p_mean": 0.8,
    "denoiser_noise_scale": 1.0, "decoder_prob": 0.5, "decoder_noise_scale": 1.0, "blr": 5e-5, "warmup_steps": 5000,
    "epochs": 200.0, "seed": 0, "online_eval": True, "eval_every_epochs": 10.0, "num_samples": 100, "clean_up": True,
    "sampling": (SamplingPreset(num_sampling_steps=(50,)),),
}  # fmt: skip
"""The reference's defaults that differ from ours. It has no max_input_length, so 0 lets the data decide."""


def is_flat(source: SettingsFile) -> bool:
    """Return whether a file looks like the reference's: flat YAML with its keys and without sections of ours."""
    content = source.content
    if source.path.suffix.lower() not in (".yaml", ".yml") or not isinstance(content, dict):
        return False
    ours = any(key in SECTIONS or key == "complete" or "." in key for key in content)
    return not ours and not KEYS.isdisjoint(content)


def how_it_was_read(path: str | Path) -> str:
    """Return the notice for a file that was read as a reference file."""
    return f"{path}: read as a reference file; unset settings have the reference's defaults (--config-style elf: ours)"


def metrics_of(max_input_length: Any, eval_data_path: Any) -> tuple[str, ...]:
    """Return the reference's scores: BLEU and ROUGE if texts have sources, else perplexity."""
    return ("bleu", "rouge") if max_input_length or eval_data_path else ("ppl",)
