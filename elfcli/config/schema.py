"""Every setting, typed and described.

A setting's name is unique over all sections, so that files, `--set` and `ELF_...` variables may use the bare name
(the flat names of the reference, lillian039/ELF) as well as `section.name`. The value `None` means "decided from
other settings", as the description says.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
GuidanceScale = Annotated[float, Field(gt=-1, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
CountOrZero = Annotated[int, Field(ge=0, le=10**12)]
Size = Annotated[int, Field(ge=1, le=10**6)]  # of an array's axis
SizeOrZero = Annotated[int, Field(ge=0, le=10**6)]
Steps = Annotated[int, Field(ge=1, le=2**31 - 1)]  # counted in int32
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # jax would cut off what is above


class Section(BaseModel):
    """Frozen, and strict about names: an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def setting(default, description: str):
    """A field with its meaning and unit."""
    return Field(default, description=description)


class DataSettings(Section):
    task: str | None = setting(None, "Task whose preset was applied, e.g. toy-de-en")
    data_path: str | None = setting(None, "Training data: folder of `elf tokenize` or save_to_disk, or a Hub data set")
    eval_data_path: str | None = setting(None, "Evaluation data; None: the `validation` split of data_path, if any")
    num_held_out: CountOrZero = setting(64, "Examples at the end of the data that are held out if it has no "
        "validation split (at most 1%)")  # fmt: skip
    max_length: Size = setting(1024, "Sequence length S in tokens, condition included")
    max_input_length: SizeOrZero = setting(0, "Most condition tokens kept; where nothing sets it, it follows from "
        "the data: 0 without sources")  # fmt: skip
    buckets: tuple[Size, ...] = setting((), "Lengths of batches, below max_length, of examples that fit them; a run's "
        "last quarter has max_length alone")  # fmt: skip
    pad_token: Literal["pad", "eos"] = setting("pad", "Token that pads; `eos` makes the model learn to end texts")
    tokenizer_name: str | None = setting(None, "Tokenizer: Hub name or folder; None: the one recorded with the data")
    source_key: str | None = setting(None, "Column of sources in files to sample; None: as recorded with the data")
    target_key: str | None = setting(None, "Column of references in files to sample; None: as recorded with the data")
    num_workers: CountOrZero = setting(2, "Threads that read and collate batches ahead of the training step")


class EncoderSettings(Section):
    encoder_model_name: str = setting("google-t5/t5-small", "Frozen encoder: a T5 folder or Hub name, or `embedding`")
    encoder_checkpoint: str | None = setting(
        None, "Encoder weights in the reference's pickle; None: encoder_model_name's"
    )
    embedding_dim: Size = setting(64, "Width E of the `embedding`, a Gaussian token table")
    embedding_seed: Seed = setting(0, "Seed of the `embedding` table")
    latent_mean: FiniteFloat | Literal["measure"] = setting(0.0, "Mean taken from latents; `measure`: of first batches")
    latent_std: Positive | Literal["measure"] = setting(0.2, "Standard deviation latents are divided by, or `measure`")


class NetworkSettings(Section):
    model: str | None = setting(None, "Model preset, e.g. ELF-B; None: the fields below as they stand")
    depth: Annotated[int, Field(ge=1, le=1000)] = setting(12, "Transformer blocks")
    hidden_size: Size = setting(768, "Hidden width H")
    num_heads: Size = setting(12, "Attention heads; must divide hidden_size into an even head size")
    bottleneck_dim: Size = setting(128, "Width b between latents and hidden states")
    num_time_tokens: Size = setting(4, "Prefix tokens that carry the time t")
    num_self_cond_cfg_tokens: SizeOrZero = setting(4, "Prefix tokens that carry the guidance scale w; 0: no w anywhere")
    num_model_mode_tokens: SizeOrZero = setting(4, "Tokens that switch between denoising and decoding")
    text_position: SizeOrZero | None = setting(
        None, "Rotary position of the text's first token, for every condition; None: the one after its condition's last"
    )
    attn_dropout: Probability = setting(
        0.0, "Dropout of attention weights, which the reference accepts and never applies; neither do we"
    )
    proj_dropout: Probability = setting(
        0.0, "Dropout of attention outputs and of the MLP's hidden product, in the middle half of the blocks"
    )


class ObjectiveSettings(Section):
    denoiser_p_mean: FiniteFloat = setting(-1.5, "Mean of the logit of t")
    denoiser_p_std: Positive = setting(0.8, "Standard deviation of the logit of t")
    denoiser_noise_scale: Positive = setting(2.0, "Noise scale of the denoise branch and of sampling")
    t_eps: Annotated[float, Field(gt=0, le=1)] = setting(0.05, "Least value of 1 - t that velocities are divided by")
    time_schedule: Literal["logit_normal", "uniform"] = setting("logit_normal", "Distribution of t in training")
    decoder_prob: Probability = setting(0.2, "Weight of the decode branch against the denoise branch")
    decoder_noise_scale: NonNegative = setting(5.0, "Noise scale of the decode branch")
    decoder_p_mean: FiniteFloat = setting(0.8, "Mean of the logit of the decode branch's mixing weight")
    decoder_p_std: Positive = setting(0.8, "Standard deviation of the logit of the decode branch's mixing weight")
    label_drop_prob: Probability = setting(0.0, "Share of examples whose condition is dropped (for CFG)")
    self_cond_prob: Probability = setting(0.5, "Share of examples that see the first pass's estimate; 0: nowhere")
    self_cond_cfg_min: GuidanceScale = setting(0.5, "Least guidance scale w drawn in training")
    self_cond_cfg_max: GuidanceScale = setting(5.0, "Greatest guidance scale w drawn in training")
    group_size: Count | None = setting(None, "Examples among which a fixed share decodes; a device should have a "
        "multiple of it. None: 16 or the next smaller divisor of the batch down to 8, else the batch")  # fmt: skip


class OptimizationSettings(Section):
    optimizer: Literal["muon", "adamw"] = setting("muon", "Muon for matrices with Adam for the rest, or AdamW")
    lr: Positive | None = setting(None, "Peak learning rate; None: blr * global batch * grad_accum_steps / 256")
    blr: Positive = setting(0.001, "Base learning rate per 256 examples, used where lr is not given")
    min_lr: NonNegative = setting(0.0, "Learning rate at the end of the cosine schedule")
    lr_schedule: Literal["constant", "cosine"] = setting("constant", "Schedule after the warm-up")
    warmup_steps: int = setting(-1, "Linear warm-up in optimiser steps; negative: warmup_epochs decides")
    warmup_epochs: NonNegative = setting(0.0, "Linear warm-up in epochs, used where warmup_steps is negative")
    weight_decay: NonNegative = setting(0.0, "Decoupled weight decay per unit of learning rate")
    adam_b1: Decay = setting(0.9, "AdamW only: decay of the first moment")
    adam_b2: Decay = setting(0.95, "AdamW only: decay of the second moment")
    grad_accum_steps: Count = setting(1, "Batches whose gradients are averaged into one optimiser step")
    clip_norm: Positive = setting(1.0, "Global gradient norm above which gradients are scaled down")
    ema_decay: Decay = setting(0.9999, "Decay per optimiser step of the weights' moving average")


class TrainingSettings(Section):
    epochs: Positive = setting(5.0, "Passes over the data; used where steps is not given")
    steps: Steps | None = setting(None, "Optimiser steps of the whole run; wins over epochs")
    minutes: Positive | None = setting(None, "Minutes from the start of `elf train` to its last checkpoint; steps "
        "follows from it and the time of a step, measured before training")  # fmt: skip
    batch_size: Count = setting(512, "Examples per batch over all devices; global_batch_size wins where both are "
        "given in one place")  # fmt: skip
    overfit_examples: Count | None = setting(None, "Train on only the first N examples (sanity check)")
    global_batch_size: Count | None = setting(None, "Examples per batch over all devices (the reference's name)")
    seed: Seed = setting(42, "Seed of weights, data order and every draw")
    log_every_steps: Count = setting(
        100, "Steps between lines of metrics.jsonl, after those of steps 1, 2, 5, 10, 20 and 50"
    )
    eval_every_epochs: NonNegative = setting(
        0.0, "Epochs between samples shown while training, and online evaluations if online_eval; 0: only at the end"
    )
    save_every_epochs: NonNegative = setting(1.0, "Epochs between checkpoints, may be fractional; 0: only at the end")
    save_every_steps: Count | None = setting(None, "Steps between checkpoints; wins over save_every_epochs")
    save_every_minutes: NonNegative = setting(10.0, "Minutes after which a checkpoint is saved in any case; 0: never")
    keep_checkpoints: Count = setting(3, "Checkpoints kept; older ones are deleted once a newer one is complete")
    output_dir: str | None = setting(None, "Run folder; None: runs/<task>-<model>")
    init_from: str | None = setting(None, "Weights to start from: run folder, exported or reference checkpoint, or "
        "Hub name; None: drawn from seed")  # fmt: skip
    resume: str | None = setting(None, "Run folder to continue; `elf resume` is the command for it")
    max_skipped_steps: Count = setting(50, "Steps in a row whose loss or gradients are not finite after which the "
        "run stops; checked when logging")  # fmt: skip
    compute_dtype: Literal["auto", "float32", "bfloat16"] = setting("auto", "Type of activations; auto: bfloat16 on "
        "accelerators, float32 on CPU; weights stay float32")  # fmt: skip
    gradient_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "Type in which the gradients of the blocks' matrices are summed over examples and devices"
    )
    remat: Literal["auto", "none", "dots", "full"] = setting("auto", "What the backward pass recomputes: nothing, "
        "all but matmuls (and fused attention), whole blocks; auto: dots on accelerators, none on CPU")  # fmt: skip
    attention: Literal["auto", "plain", "tpu", "cudnn"] = setting("auto", "Attention kernel: plain XLA, or the fused "
        "one of TPUs or of GPUs; auto: what the backend has")  # fmt: skip
    fsdp_devices: Count | None = setting(None, "Devices that share one copy of weights, average and optimizer "
        "state; None: 1, or more if one device is too small")  # fmt: skip


class DistillationSettings(Section):
    """What `elf distill` sets: a run with student_steps is a round of it, and learns from the frozen teacher."""

    teacher: str | None = setting(None, "Frozen teacher: run folder, exported or reference checkpoint, or Hub name")
    teacher_step: CountOrZero | None = setting(None, "Checkpoint of the teacher; None: its newest")
    teacher_steps: Size = setting(64, "Steps that the teacher takes from noise to text; every student_steps divides it")
    teacher_cfg: FiniteFloat | None = setting(None, "Guidance of the condition that the student learns from "
        "its teacher; 1: none; None: that of the teacher's sampling preset")  # fmt: skip
    student_steps: Size | None = setting(None, "Network steps that the student is made for; None: ordinary training")
    decode_with_condition: bool = setting(False, "Show the decode branch the condition beside its noisy latents, as "
        "the reference's distillation does; sampling and ordinary training show zeros")  # fmt: skip
    rounds: tuple[Size, ...] = setting((16, 8, 4, 2, 1), "student_steps of the rounds of `elf distill`, in their order")
    round_steps: Steps | None = setting(None, "Optimiser steps of a round of `elf distill`; None: one epoch")

    @property
    def sub_steps(self) -> int:
        """K, the teacher's steps within one of the student's."""
        return self.teacher_steps // (self.student_steps or self.teacher_steps)


class SamplingPreset(Section):
    """One entry of a sampling preset, in the form of the reference's files; every combination of its lists is run."""

    sampling_method: Literal["ode", "sde", "multistep"] = setting("ode", "Solver; multistep: the ODE to second order")
    num_sampling_steps: tuple[Size, ...] = setting((64,), "Network steps")
    cfgs: tuple[FiniteFloat, ...] = setting((1.0,), "Classifier-free guidance scales of the condition; 1: off")
    self_cond_scales: tuple[FiniteFloat, ...] = setting((1.0,), "Self-conditioning guidance scales w")
    time_schedule: Literal["logit_normal", "uniform", "shifted"] = setting("logit_normal", "Time grid")
    time_shift: Positive = setting(1.0, "Of a `shifted` grid: times u/(u + shift (1 - u)) for even u; above 1 more "
        "steps near the noise")  # fmt: skip
    sde_gamma: NonNegative = setting(0.0, "Noise put back per unit of time (SDE only)")
    candidates: Size = setting(1, "Texts drawn for each source, of which the one most like the others is kept")


class EvaluationSettings(Section):
    sampling_configs_path: str | None = setting(None, "File with a list of sampling settings; replaces `sampling`")
    num_samples: Count = setting(1000, "Samples drawn for an evaluation")
    online_eval: bool = setting(False, "Evaluate while training")
    num_live_samples: CountOrZero = setting(3, "Texts sampled and shown every eval_every_epochs epochs of training")
    metrics: tuple[str, ...] = setting((), "Scores of the task: bleu, rouge, ppl, mauve")
    clean_up: bool = setting(False, "Take the space before . ? ! , n't 's and the like out of decoded texts, as the "
        "published figures do; alters text that has such spaces")  # fmt: skip
    eval_ppl_model: str = setting("gpt2-large", "Judge of generative perplexity, a GPT-2, Llama or Qwen: folder or Hub "
        "name")  # fmt: skip
    eval_ppl_batch_size: Count = setting(8, "Texts per batch for perplexity")
    eval_ppl_max_length: Size = setting(1024, "Tokens at which texts are cut for perplexity")
    eval_ppl_dtype: Literal["float32", "bfloat16"] = setting("float32", "Arithmetic of the judge; the paper's protocol "
        "is float32")  # fmt: skip


class TrackingSettings(Section):
    hub_repo: str | None = setting(None, "Hub repository that every checkpoint is mirrored to")
    hf_repo_id: str | None = setting(None, "The reference's name of hub_repo, which wins where both are given")
    use_wandb: bool = setting(False, "Log to Weights & Biases")
    wandb_project: str | None = setting(None, "Weights & Biases project")
    wandb_entity: str | None = setting(None, "Weights & Biases entity")
    wandb_run_name: str | None = setting(None, "Weights & Biases run name")
    wandb_tag: str | None = setting(None, "Weights & Biases tag")
    wandb_resume: bool | str | None = setting(None, "Weights & Biases resume mode")
    tracker: Literal["none", "wandb", "trackio", "tensorboard"] = setting("none", "Tracker beside metrics.jsonl")


class Retired(Section):
    """Settings of earlier versions: read from the sections that RETIRED names, and without effect."""

    branching: Literal["split", "device"] = setting("split", "How the examples that decode were chosen")
    time_grid: tuple[Probability, ...] = setting((), "Times of a `fitted` grid")


class Config(Section):
    data: DataSettings = DataSettings()
    encoder: EncoderSettings = EncoderSettings()
    network: NetworkSettings = NetworkSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimization: OptimizationSettings = OptimizationSettings()
    training: TrainingSettings = TrainingSettings()
    distillation: DistillationSettings = DistillationSettings()
    sampling: tuple[SamplingPreset, ...] = (SamplingPreset(),)
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()

    @property
    def global_batch(self) -> int:
        """Examples per batch over all devices and processes."""
        return self.training.global_batch_size or self.training.batch_size

    @property
    def timed(self) -> bool:
        """Whether the run's steps are those that fit into its minutes, counted when it starts."""
        return self.training.minutes is not None and self.training.steps is None

    @property
    def peak_lr(self) -> float:
        """`lr`, or `blr` times the examples of an optimiser step / 256."""
        part = self.optimization
        return part.lr if part.lr is not None else part.blr * self.global_batch * part.grad_accum_steps / 256


SECTIONS: dict[str, type[Section]] = {name: type(value) for name, value in Config() if name != "sampling"}
SECTION_OF: dict[str, str] = {leaf: name for name, section in SECTIONS.items() for leaf in section.model_fields}
"""Section that holds each setting, by the setting's bare name."""
RENAMED = {
    "held_out": "num_held_out",
    "frames": "buckets",
    "overfit": "overfit_examples",
    "keep": "keep_checkpoints",
    "fsdp": "fsdp_devices",
    "num_shown": "num_live_samples",
    "ema_decay1": "ema_decay",
    "save_freq": "save_every_epochs",
    "eval_freq": "eval_every_epochs",
    "log_freq": "log_every_steps",
    "self_cond_cfg_scales": "self_cond_scales",
}
"""Former names of settings, and those of the reference, which stay readable everywhere."""
RETIRED = {"branching": "objective", "time_grid": "evaluation"}
REMOVED_SCHEDULE = "the `fitted` grid was removed, since no score showed its gain (docs/experiments.md): use `uniform`"
BEFORE_0_2 = {"gradient_dtype": "bfloat16", "num_held_out": 0}
"""What settings meant in the runs of 0.1.0, whose config.toml lacks them; such a run keeps it when it is resumed."""
WITHOUT_EFFECT: dict[str, tuple[tuple, str]] = {
    "wandb_resume": ((None, False, ""), "wandb_resume changes nothing here: a resumed run continues its tracker run "
                     "by itself"),
    "attn_dropout": ((None, 0.0), "attn_dropout changes nothing here, as in the reference: use proj_dropout"),
    "branching": ((None, "split"), "branching=device changes nothing here: on any number of devices a fixed share of "
                  "each batch decodes"),
    "time_grid": ((None, ()), f"time_grid: {REMOVED_SCHEDULE}"),
}  # fmt: skip
"""Accepted settings that change nothing: (values that need no warning, the warning)."""
