"""Every setting, with its type and description.

Setting names are unique over all sections. So files, `--set` and `ELF_...` variables accept the bare name (the flat
names of the reference, lillian039/ELF) as well as `section.name`. `None` means that other settings decide the value,
as the description says.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
GuidanceScale = Annotated[float, Field(gt=-1, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
CountOrZero = Annotated[int, Field(ge=0, le=10**12)]
Size = Annotated[int, Field(ge=1, le=10**6)]  # of an array axis
SizeOrZero = Annotated[int, Field(ge=0, le=10**6)]
Steps = Annotated[int, Field(ge=1, le=2**31 - 1)]  # counted in int32
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # jax drops higher bits


GAP_KINDS = ("free", "prefix", "span", "several")
"""What is hidden of a text in training with gaps: all; all but its beginning; one gap of up to half the text; two to
four short gaps."""
GAP_SHARES = (0.25, 0.25, 0.25, 0.25)  # what `elf train --gaps` stands for


class Section(BaseModel):
    """Frozen settings; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def setting(default: Any, description: str) -> Any:
    """Return a field with its default and a description that includes the unit."""
    return Field(default, description=description)


class DataSettings(Section):
    """Training and evaluation data, tokenizer and sequence lengths."""

    task: str | None = setting(None, "Task whose preset was applied, e.g. toy-de-en")
    data_path: str | None = setting(None, "Training data: folder of `elf tokenize` or save_to_disk, or a Hub data set")
    eval_data_path: str | None = setting(None, "Evaluation data; None: the `validation` split of data_path, if any")
    num_held_out: CountOrZero = setting(64, "Last examples held out if there is no validation split (at most 1%)")
    max_length: Size = setting(1024, "Sequence length S in tokens, including the condition")
    max_input_length: SizeOrZero = setting(0, "Maximum number of condition tokens. If it is not set, it is chosen "
        "from the data: 0 without sources")  # fmt: skip
    gaps: tuple[Probability, ...] = setting((), "Train on free texts with gaps: shares of texts of which nothing is "
        "known, the beginning, all but one gap, or all but several; `elf train --gaps`: a quarter each")  # fmt: skip
    gaps_after: Probability = setting(0.0, "Share of a run with gaps in which all texts are free, before any gaps")
    buckets: tuple[Size, ...] = setting((), "Bucket lengths below max_length for batches of similar-length examples; "
        "the last quarter of a run uses max_length only")  # fmt: skip
    pad_token: Literal["pad", "eos"] = setting("pad", "Padding token; with `eos` the model learns to end texts")
    tokenizer_name: str | None = setting(None, "Tokenizer: Hub name or folder; None: the one recorded with the data")
    source_key: str | None = setting(None, "Source column of files to sample from; None: as recorded with the data")
    target_key: str | None = setting(None, "Reference column of files to sample from; None: as recorded with the data")
    num_workers: CountOrZero = setting(2, "Threads that read and collate batches ahead of the training step")

    @property
    def takes_sources(self) -> bool:
        """Return whether texts are generated from sources; known texts with gaps are none."""
        return self.max_input_length > 0 and not self.gaps


class EncoderSettings(Section):
    """The frozen encoder and the normalization of its latents."""

    encoder_model_name: str = setting("google-t5/t5-small", "Frozen encoder: a folder or Hub name of T5, mT5, "
        "ByT5, umT5, T5Gemma or GPT-2, or `embedding`")  # fmt: skip
    encoder_checkpoint: str | None = setting(None, "Pickle of the reference with encoder weights; None: the weights "
        "of encoder_model_name")  # fmt: skip
    embedding_dim: Size = setting(64, "Width E of the `embedding` encoder, a table of Gaussian token vectors")
    embedding_seed: Seed = setting(0, "Seed of the `embedding` table")
    latent_mean: FiniteFloat | Literal["measure"] = setting(
        0.0, "Mean subtracted from latents; `measure`: of first batches"
    )
    latent_std: Positive | Literal["measure"] = setting(0.2, "Standard deviation latents are divided by, or `measure`")


class NetworkSettings(Section):
    """Sizes of the ELF network."""

    model: str | None = setting(None, "Model preset, e.g. ELF-B; None: the sizes below")
    depth: Annotated[int, Field(ge=1, le=1000)] = setting(12, "Transformer blocks")
    hidden_size: Size = setting(768, "Hidden width H")
    num_heads: Size = setting(12, "Attention heads; must divide hidden_size into an even head size")
    bottleneck_dim: Size = setting(128, "Width b between latents and hidden states")
    num_time_tokens: Size = setting(4, "Prefix tokens that carry the time t")
    num_self_cond_cfg_tokens: SizeOrZero = setting(4, "Prefix tokens that carry the guidance scale w; 0: w is not used")
    num_model_mode_tokens: SizeOrZero = setting(4, "Tokens that switch between denoising and decoding")
    text_position: SizeOrZero | None = setting(None, "Fixed rotary position of texts; None: after the condition")
    attn_dropout: Probability = setting(0.0, "Accepted and never applied, as in the reference")
    proj_dropout: Probability = setting(0.0, "Dropout of attention outputs and of the MLP's hidden product, in the "
        "middle half of the blocks")  # fmt: skip


class ObjectiveSettings(Section):
    """Noise, times, guidance and branches of the training objective."""

    denoiser_p_mean: FiniteFloat = setting(-1.5, "Mean of the logit of t")
    denoiser_p_std: Positive = setting(0.8, "Standard deviation of the logit of t")
    denoiser_noise_scale: Positive = setting(2.0, "Noise scale of the denoise branch and of sampling")
    t_eps: Annotated[float, Field(gt=0, le=1)] = setting(0.05, "Lower bound of 1 - t when velocities are divided by it")
    time_schedule: Literal["logit_normal", "uniform"] = setting("logit_normal", "Distribution of t in training")
    decoder_prob: Probability = setting(0.2, "Weight of the decode branch; the denoise branch has the rest")
    decoder_noise_scale: NonNegative = setting(5.0, "Noise scale of the decode branch")
    decoder_p_mean: FiniteFloat = setting(0.8, "Mean of the logit of the decode branch's mixing weight")
    decoder_p_std: Positive = setting(0.8, "Standard deviation of the logit of the decode branch's mixing weight")
    label_drop_prob: Probability = setting(0.0, "Share of examples whose condition is dropped (for CFG)")
    self_cond_prob: Probability = setting(0.5, "Share of examples that get the first pass's estimate; 0: none")
    self_cond_cfg_min: GuidanceScale = setting(0.5, "Smallest guidance scale w drawn in training")
    self_cond_cfg_max: GuidanceScale = setting(5.0, "Largest guidance scale w drawn in training")
    group_size: Count | None = setting(None, "Examples per group, of which a fixed share decodes; a device should hold "
        "a multiple of it. None: the largest divisor of the batch from 16 down to 8, else the batch")  # fmt: skip


class OptimizationSettings(Section):
    """Optimizer and learning-rate schedule."""

    optimizer: Literal["muon", "adamw"] = setting("muon", "Muon for matrices and Adam for the rest, or AdamW")
    lr: Positive | None = setting(None, "Peak learning rate; None: blr * global batch * grad_accum_steps / 256")
    blr: Positive = setting(0.001, "Base learning rate per 256 examples, used if lr is not set")
    min_lr: NonNegative = setting(0.0, "Learning rate at the end of the cosine schedule")
    lr_schedule: Literal["constant", "cosine"] = setting("constant", "Schedule after the warm-up")
    warmup_steps: int = setting(-1, "Linear warm-up in optimizer steps; negative: use warmup_epochs")
    warmup_epochs: NonNegative = setting(0.0, "Linear warm-up in epochs, used if warmup_steps is negative")
    weight_decay: NonNegative = setting(0.0, "Decoupled weight decay per unit of learning rate")
    adam_b1: Decay = setting(0.9, "AdamW only: decay of the first moment")
    adam_b2: Decay = setting(0.95, "AdamW only: decay of the second moment")
    grad_accum_steps: Count = setting(1, "Batches whose gradients are averaged into one optimizer step")
    clip_norm: Positive = setting(1.0, "Global gradient norm above which gradients are scaled down")
    ema_decay: Decay = setting(0.9999, "Decay of the weights' moving average per optimizer step")


class TrainingSettings(Section):
    """Length, batch size, checkpoints and arithmetic of a run."""

    epochs: Positive = setting(5.0, "Passes over the data, used if steps is not set")
    steps: Steps | None = setting(None, "Optimizer steps of the whole run; overrides epochs")
    minutes: Positive | None = setting(None, "Minutes from the start of `elf train` to its last checkpoint; the "
        "number of steps follows from the time per step, which is measured before training")  # fmt: skip
    batch_size: Count = setting(512, "Examples per batch over all devices, unless global_batch_size is set")
    overfit_examples: Count | None = setting(None, "Train on only the first N examples (sanity check)")
    global_batch_size: Count | None = setting(None, "Examples per batch over all devices (the reference's name)")
    seed: Seed = setting(42, "Seed of weights, data order and every draw")
    log_every_steps: Count = setting(100, "Steps between lines of metrics.jsonl, which also has steps 1, 2, 5, 10, 20 "
        "and 50")  # fmt: skip
    log_layer_norms: bool = setting(False, "Add the norm of each layer's weights and their distance to the average to "
        "the lines of metrics.jsonl")  # fmt: skip
    eval_every_epochs: NonNegative = setting(0.0, "Epochs between live samples, and between evaluations if online_eval "
        "is set; 0: only at the end")  # fmt: skip
    save_every_epochs: NonNegative = setting(1.0, "Epochs between checkpoints, may be fractional; 0: only at the end")
    save_every_steps: Count | None = setting(None, "Steps between checkpoints; overrides save_every_epochs")
    save_every_minutes: NonNegative = setting(10.0, "Longest time between checkpoints in minutes; 0: no limit")
    keep_checkpoints: Count = setting(3, "Checkpoints to keep; older ones are deleted once a newer one is complete")
    output_dir: str | None = setting(None, "Run folder; None: runs/<task>-<model>")
    init_from: str | None = setting(None, "Initial weights: run folder, exported or reference checkpoint, or Hub name; "
        "None: random, drawn from seed")  # fmt: skip
    resume: str | None = setting(None, "Run folder to resume, as `elf resume` does")
    max_skipped_steps: Count = setting(50, "Consecutive steps with a non-finite loss or gradient after which the run "
        "stops; checked when logging")  # fmt: skip
    compute_dtype: Literal["auto", "float32", "bfloat16"] = setting("auto", "Type of activations; auto: bfloat16 on "
        "accelerators, float32 on CPU; weights stay float32")  # fmt: skip
    gradient_dtype: Literal["float32", "bfloat16"] = setting("float32", "Type in which the gradients of the blocks' "
        "matrices are summed over examples and devices")  # fmt: skip
    remat: Literal["auto", "none", "dots", "full"] = setting("auto", "What the backward pass recomputes. none: "
        "nothing; dots: all but matmuls and fused attention; full: blocks; auto: none on CPU, else dots")  # fmt: skip
    unroll: Literal["auto", "all", "none"] = setting("auto", "Blocks that the training step contains one by one, not "
        "in a loop: a shorter step with more memory, longer to compile; auto: all on GPUs without remat=full, else "
        "none")  # fmt: skip
    attention: Literal["auto", "plain", "tpu", "cudnn"] = setting("auto", "Attention kernel: plain XLA, or the fused "
        "kernel of TPUs or GPUs; auto: the backend's kernel, if any")  # fmt: skip
    fsdp_devices: Count | None = setting(None, "Devices that share one copy of weights, average and optimizer "
        "state; None: 1, or more if one device is too small")  # fmt: skip


class DistillationSettings(Section):
    """Settings that `elf distill` sets: a run with student_steps is one round and learns from the frozen teacher."""

    distill_objective: Literal["progressive", "mmd", "ird"] = setting("progressive", "What a student learns; "
        "progressive: the teacher's steps; mmd: texts whose features are distributed as real ones; ird: several passes "
        "of the mmd student in one")  # fmt: skip
    teacher: str | None = setting(None, "Frozen teacher: run folder, exported or reference checkpoint, or Hub name")
    teacher_step: CountOrZero | None = setting(None, "Checkpoint of the teacher; None: its newest")
    teacher_steps: Size = setting(64, "Sampling steps of the teacher; every student_steps divides it")
    teacher_cfg: FiniteFloat | None = setting(None, "Classifier-free guidance scale of the teacher's targets; 1: off; "
        "None: the scale in the teacher's sampling preset")  # fmt: skip
    teacher_schedule: Literal["logit_normal", "uniform"] = setting("logit_normal", "Distribution of the teacher's "
        "times within a student's step; logit_normal: of denoiser_p_mean and denoiser_p_std")  # fmt: skip
    student_steps: Size | None = setting(None, "Network steps that the student is trained for; None: ordinary training")
    decode_with_condition: bool = setting(False, "Give the decode branch the condition as its previous estimate, as "
        "the reference's distillation does; sampling and ordinary training give zeros")  # fmt: skip
    rounds: tuple[Size, ...] = setting((16, 8, 4, 2, 1), "student_steps of each round of `elf distill`, in order")
    round_steps: Steps | None = setting(None, "Optimizer steps per round of `elf distill`; None: one epoch")
    stage_steps: tuple[Steps, ...] = setting((10_000, 5_500), "Optimizer steps of the stages mmd and ird of `elf "
        "distill --objective mmd`; one number: without ird")  # fmt: skip
    sigma: Positive | Literal["measure"] = setting("measure", "mmd: width of the kernel; `measure`: the median "
        "distance between features of real tokens")  # fmt: skip
    kernel_texts: Size = setting(2, "mmd: texts whose tokens are compared in one kernel; divides the examples of a "
        "group that do not decode")  # fmt: skip
    kernel_pairs: Literal["tokens", "texts"] = setting("tokens", "mmd: compare a token with all others of its sample, "
        "or only with those of other texts")  # fmt: skip
    feature_layer: SizeOrZero | None = setting(None, "mmd: block of the frozen network, from 0, after which features "
        "are taken; None: the last one of the first half")  # fmt: skip
    max_bootstrap_steps: Size = setting(3, "mmd: most passes of the generator before the one that is trained")
    no_bootstrap_prob: Probability = setting(0.25, "mmd: share of optimizer steps without such passes")
    ird_passes: Size = setting(8, "ird: refinement passes of the mmd student that one pass learns")

    @property
    def sub_steps(self) -> int:
        """Return K, the number of teacher steps within one student step."""
        return self.teacher_steps // (self.student_steps or self.teacher_steps)

    @property
    def student(self) -> str | None:
        """Return the kind of student in words, None in ordinary training."""
        if self.distill_objective == "progressive":
            return f"{self.student_steps}-step student" if self.student_steps is not None else None
        return f"{self.distill_objective.upper()} student"

    def feature_block(self, depth: int) -> int:
        """Return the index of the block of a network of `depth` blocks after which features are taken."""
        return self.feature_layer if self.feature_layer is not None else max(depth // 2 - 1, 0)


class SamplingPreset(Section):
    """One entry of a sampling preset, as in the reference's files; every combination of its lists is run."""

    sampling_method: Literal["ode", "sde", "multistep", "refine"] = setting("ode", "Solver; multistep: second-order "
        "ODE solver; refine: passes at t = 0, each of which sees the last estimate")  # fmt: skip
    num_sampling_steps: tuple[Size, ...] = setting((64,), "Network steps")
    cfgs: tuple[FiniteFloat, ...] = setting((1.0,), "Classifier-free guidance scales of the condition; 1: off")
    self_cond_scales: tuple[FiniteFloat, ...] = setting((1.0,), "Self-conditioning guidance scales w")
    time_schedule: Literal["logit_normal", "uniform", "shifted"] = setting("logit_normal", "Time grid")
    time_shift: Positive = setting(1.0, "Shift of a `shifted` grid, u/(u + shift (1 - u)) for even u; above 1: more "
        "steps near the noise")  # fmt: skip
    sde_gamma: NonNegative = setting(0.0, "Noise added back per unit of time (SDE only)")
    fill_steps: Size | None = setting(None, "Network steps when gaps are filled; None: num_sampling_steps")
    fill_gamma: NonNegative | None = setting(None, "sde_gamma when gaps are filled; None: the same")
    fill_candidates: Size = setting(8, "Candidates when gaps are filled, if `candidates` is 1; the likeliest is kept")
    candidates: Size = setting(1, "Texts drawn per source; the one most similar to the others is kept")
    resample_noise: bool = setting(False, "Draw the noise anew for each pass of `refine` after the first")


class EvaluationSettings(Section):
    """Samples and scores."""

    sampling_configs_path: str | None = setting(None, "File with a list of sampling settings; replaces `sampling`")
    num_samples: Count = setting(1000, "Samples drawn for an evaluation")
    online_eval: bool = setting(False, "Evaluate during training")
    num_live_samples: CountOrZero = setting(3, "Texts sampled and printed every eval_every_epochs epochs of training")
    metrics: tuple[str, ...] = setting((), "Scores of the task, e.g. bleu,ppl")
    protocol: Literal["auto", "paper", "sacrebleu", "unicode"] = setting("auto", "Protocol of BLEU and ROUGE; `auto`: "
        "paper for the paper's tasks and if it is not blind to the references' script, else unicode")  # fmt: skip
    clean_up: bool = setting(False, "Remove the space before . ? ! , n't 's etc. in decoded texts, as the published "
        "figures do; also alters texts that contain such spaces")  # fmt: skip
    eval_ppl_model: str = setting("gpt2-large", "Judge of perplexity, a GPT-2, Llama or Qwen (folder or Hub name); "
        "ngram: a trigram model of the training texts, which needs no download")  # fmt: skip
    eval_ppl_batch_size: Count = setting(8, "Texts per batch for perplexity")
    eval_ppl_max_length: Size = setting(1024, "Tokens to which texts are truncated for perplexity")
    eval_ppl_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "Arithmetic of the judge; the paper's is float32"
    )


class TrackingSettings(Section):
    """Experiment trackers and Hub mirrors."""

    hub_repo: str | None = setting(None, "Hub repository to which every checkpoint is mirrored")
    hf_repo_id: str | None = setting(None, "The reference's name of hub_repo; hub_repo wins if both are set")
    use_wandb: bool = setting(False, "Log to Weights & Biases")
    wandb_project: str | None = setting(None, "Weights & Biases project")
    wandb_entity: str | None = setting(None, "Weights & Biases entity")
    wandb_run_name: str | None = setting(None, "Weights & Biases run name")
    wandb_tag: str | None = setting(None, "Weights & Biases tag")
    wandb_resume: bool | str | None = setting(None, "Weights & Biases resume mode")
    tracker: Literal["none", "wandb", "trackio", "tensorboard"] = setting("none", "Additional tracker")


class Retired(Section):
    """Settings of earlier versions, which are read from the sections in RETIRED and have no effect."""

    branching: Literal["split", "device"] = setting("split", "How the examples that decode were chosen")
    time_grid: tuple[Probability, ...] = setting((), "Times of a `fitted` grid")


class Config(Section):
    """All settings of a run."""

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
        """Return the number of examples per batch over all devices and processes."""
        return self.training.global_batch_size or self.training.batch_size

    @property
    def evaluates_free_texts(self) -> bool:
        """Return whether an evaluation samples texts for which nothing is known: neither sources nor gaps to fill."""
        return not (self.data.takes_sources or self.evaluates_gaps)

    @property
    def evaluates_gaps(self) -> bool:
        """Return whether an evaluation fills gaps in texts."""
        return not self.data.takes_sources and "gaps" in self.evaluation.metrics

    @property
    def timed(self) -> bool:
        """Return whether `minutes` determines the number of steps when the run starts."""
        return self.training.minutes is not None and self.training.steps is None

    @property
    def peak_lr(self) -> float:
        """Return `lr`, or `blr` times the examples per optimizer step / 256."""
        part = self.optimization
        return part.lr if part.lr is not None else part.blr * self.global_batch * part.grad_accum_steps / 256


SECTIONS: dict[str, type[Section]] = {name: type(value) for name, value in Config() if name != "sampling"}
SECTION_OF: dict[str, str] = {leaf: name for name, section in SECTIONS.items() for leaf in section.model_fields}
"""Section of each setting, by bare name."""
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
"""Former names and the reference's names of settings, which are accepted everywhere."""
RETIRED = {"branching": "objective", "time_grid": "evaluation"}
REMOVED_SCHEDULE = "the `fitted` grid was removed because it improved no score (docs/experiments.md): use `uniform`"
FORMER_DEFAULTS = {"gradient_dtype": "bfloat16", "num_held_out": 0, "teacher_schedule": "uniform"}
"""Values that a resumed run of an earlier version keeps for settings that its config.toml does not have."""
WITHOUT_EFFECT: dict[str, tuple[tuple, str]] = {
    "wandb_resume": ((None, False, ""), "wandb_resume has no effect: a resumed run continues its tracker run anyway"),
    "attn_dropout": ((None, 0.0), "attn_dropout has no effect, as in the reference: use proj_dropout"),
    "branching": ((None, "split"), "branching=device has no effect: a fixed share of each batch decodes on any number "
                  "of devices"),
    "time_grid": ((None, ()), f"time_grid: {REMOVED_SCHEDULE}"),
}  # fmt: skip
"""Accepted settings without effect: (values that need no warning, the warning)."""
