"""Sampling settings: a single setting, the combinations of a preset, and settings built from options."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from elfcli.config.presets import presets_dir
from elfcli.config.resolve import resolve
from elfcli.config.schema import Config, SamplingPreset
from elfcli.config.values import BadValue, check_sampling_field, check_sampling_item, parse_toml_value
from elfcli.errors import InputError, did_you_mean

OPTION_FIELDS = {
    "sampler": "sampling_method",
    "steps": "num_sampling_steps",
    "gamma": "sde_gamma",
    "cfg": "cfg",
    "w": "self_cond_scale",
    "time_schedule": "time_schedule",
    "time_shift": "time_shift",
    "candidates": "candidates",
    "resample_noise": "resample_noise",
}
"""The field of a SamplingSetting that each option sets."""
PRESET_LISTS = {"num_sampling_steps": "num_sampling_steps", "cfg": "cfgs", "self_cond_scale": "self_cond_scales"}
"""Fields that are lists in a preset, and the names of the lists."""
MAX_SETTINGS = 1000


@dataclass(frozen=True)
class SamplingSetting:
    """One setting of the sampler; its fields are described in config/schema.py. The ODE ignores sde_gamma, and
    refinement the times."""

    sampling_method: str = "ode"
    num_sampling_steps: int = 64
    cfg: float = 1.0
    self_cond_scale: float = 1.0
    time_schedule: str = "logit_normal"
    sde_gamma: float = 0.0
    time_shift: float = 1.0
    candidates: int = 1
    resample_noise: bool = False

    @property
    def name(self) -> str:
        """The name in tables and files, such as `sde8-gamma1.5-cfg1.5-w1-logit_normal-of8`."""
        gamma = f"-gamma{self.sde_gamma:g}" if self.sampling_method == "sde" else ""
        steps = f"{self.sampling_method}{self.num_sampling_steps}{'-resampled' if self.resample_noise else ''}"
        best_of = f"-of{self.candidates}" if self.candidates > 1 else ""
        return f"{steps}{gamma}-cfg{self.cfg:g}-w{self.self_cond_scale:g}-{self.grid}{best_of}"

    @property
    def grid(self) -> str:
        """The time schedule, with its shift; `start` for refinement, whose passes are all at time 0."""
        if self.sampling_method == "refine":
            return "start"
        return self.time_schedule + (f"{self.time_shift:g}" if self.time_schedule == "shifted" else "")

    @property
    def options(self) -> str:
        """The same setting as options of `elf sample`."""
        unused = {"sde_gamma"} if self.sampling_method != "sde" else set()
        unused |= {"time_shift"} if self.time_schedule != "shifted" else set()
        unused |= {"candidates"} if self.candidates == 1 else set()
        unused |= {"time_schedule", "time_shift"} if self.sampling_method == "refine" else set()
        values = {option: getattr(self, field) for option, field in OPTION_FIELDS.items() if field not in unused}
        words = {option: "" if value is True else f" {value}" for option, value in values.items() if value is not False}
        return " ".join(f"--{option.replace('_', '-')}{word}" for option, word in words.items())


def flag(option: str) -> str:
    """Return an option as it is written on the command line."""
    return "--w (or --sc-cfg)" if option == "w" else "--" + option.replace("_", "-")


def settings_of(presets: Sequence[SamplingPreset]) -> list[SamplingSetting]:
    """Return every combination of every preset."""
    return [
        SamplingSetting(one.sampling_method, steps, cfg, w, one.time_schedule, one.sde_gamma, one.time_shift,
                        one.candidates, one.resample_noise)
        for one in presets
        for steps, cfg, w in product(one.num_sampling_steps, one.cfgs, one.self_cond_scales)
    ]  # fmt: skip


def option_values(texts: Mapping[str, str | None]) -> dict[str, list]:
    """Return {field: its values}, without duplicates, from comma-separated texts by option; None: not given.

    Raises InputError that names the option and the value that the schema refuses.
    """
    found: dict[str, list] = {}
    for option, text in texts.items():
        field = OPTION_FIELDS[option]
        for word in text.split(",") if text is not None else ():
            value = parse_toml_value(word.strip())
            try:
                if field in PRESET_LISTS:
                    value = check_sampling_item(PRESET_LISTS[field], value)
                else:
                    value = check_sampling_field(field, value)
            except BadValue as error:
                raise InputError(f"{flag(option)} {text}: '{word.strip()}': {error}") from None
            found[field] = [*found.get(field, ()), value]
    return {field: list(dict.fromkeys(values)) for field, values in found.items()}


def one_value_each(texts: Mapping[str, str | None]) -> dict[str, Any]:
    """Return {field: value} as `option_values` does. Raises InputError if an option has several values."""
    for option, text in texts.items():
        if len(option_values({option: text}).get(OPTION_FIELDS[option], ())) > 1:
            raise InputError(f"{flag(option)} {text}: `elf sample` takes one value; `elf sweep` takes several")
    return {field: values[0] for field, values in option_values(texts).items()}


def chosen_setting(presets: Sequence[SamplingPreset], given: Mapping[str, Any]) -> SamplingSetting:
    """Return the presets' setting that is nearest in sampler and steps, with the given fields replaced.

    An SDE without a given gamma takes the gamma of the nearest SDE preset, of the published ones if the presets have
    none.
    """
    sampler, steps = given.get("sampling_method"), given.get("num_sampling_steps")

    def nearest(settings: list[SamplingSetting]) -> SamplingSetting:
        def distance(setting: SamplingSetting) -> tuple:
            return sampler not in (None, setting.sampling_method), abs((steps or 0) - setting.num_sampling_steps)

        return min(settings, key=distance if steps else lambda setting: distance(setting)[:1])

    setting = nearest(settings_of(presets))
    if sampler == "sde" and setting.sampling_method != "sde":
        published = resolve(files=[presets_dir() / "sampling" / "uncond.toml"], environ={}).config.sampling
        setting = replace(setting, sde_gamma=nearest(settings_of(published)).sde_gamma)
    return replace(setting, **given)


def combinations(presets: Sequence[SamplingPreset], wanted: Mapping[str, list]) -> list[SamplingSetting]:
    """Return every combination of the wanted values, each completed as by `elf sample`; without any, the presets."""
    if not wanted:
        return without_repeats(settings_of(presets))
    count = prod(map(len, wanted.values()))
    if count > MAX_SETTINGS:
        raise InputError(f"{count:,} settings are more than {MAX_SETTINGS:,}; pass fewer values")
    return without_repeats(
        chosen_setting(presets, dict(zip(wanted, values, strict=True))) for values in product(*wanted.values())
    )


def setting_of_options(config: Config, options: Mapping[str, Any], fills: bool = False) -> SamplingSetting:
    """Return the setting that options of `Model.generate` choose; None: not given. Raises InputError for others.

    fills: as of `one_setting`.
    """
    for name in options.keys() - OPTION_FIELDS.keys():
        raise InputError(f"{name}: not an option{did_you_mean(name, OPTION_FIELDS)}: {', '.join(OPTION_FIELDS)}")
    texts = {name: None if value is None else str(value) for name, value in options.items()}
    return one_setting(config, one_value_each(texts), fills)


def one_setting(config: Config, given: Mapping[str, Any], fills: bool = False) -> SamplingSetting:
    """Return the setting that the given fields choose. Raises InputError for a given field without effect.

    fills: whether it is for templates.
    """
    setting = chosen_setting(for_templates(config.sampling) if fills else config.sampling, given)
    check_used(config, given, [setting])
    return setting


def for_templates(presets: Sequence[SamplingPreset], choose: bool = True) -> list[SamplingPreset]:
    """Return the presets with their steps, gamma and candidates of filled gaps.

    choose: whether several are drawn; to choose, the n-grams of the training texts must be counted.
    """
    return [
        one.model_copy(update={
            "num_sampling_steps": one.num_sampling_steps if one.fill_steps is None else (one.fill_steps,),
            "sde_gamma": one.sde_gamma if one.fill_gamma is None else one.fill_gamma,
            "candidates": one.fill_candidates if choose and one.candidates == 1 else one.candidates,
        })
        for one in presets
    ]  # fmt: skip


def evaluated(config: Config, choose: bool = True) -> Sequence[SamplingPreset]:
    """Return the presets of an evaluation. choose: as of `for_templates`."""
    return for_templates(config.sampling, choose) if config.evaluates_gaps else config.sampling


def check_used(config: Config, given: Collection[str], settings: Sequence[SamplingSetting]) -> None:
    """Raise InputError for a given field that none of the settings uses."""
    if "sde_gamma" in given and all(setting.sampling_method != "sde" for setting in settings):
        raise InputError("--gamma: only the SDE uses it; add --sampler sde")
    if "resample_noise" in given and all(setting.sampling_method != "refine" for setting in settings):
        raise InputError("--resample-noise: only refinement uses it; add --sampler refine")
    if "time_schedule" in given and all(setting.sampling_method == "refine" for setting in settings):
        raise InputError("--time-schedule: refinement does not use it, because all its passes are at t = 0")
    if "time_shift" in given and all(setting.time_schedule != "shifted" for setting in settings):
        raise InputError("--time-shift: only the shifted grid uses it; add --time-schedule shifted")
    if "cfg" in given and not config.data.max_input_length and any(setting.cfg != 1 for setting in settings):
        raise InputError("--cfg: guides towards the source, but this model generates free text; use --w for guidance")


def without_repeats(settings: Iterable[SamplingSetting]) -> list[SamplingSetting]:
    """Return the settings without duplicates; ODEs have no gamma, only shifted grids a shift, and refinement no times
    and no gamma."""
    found = [replace(s, sde_gamma=0.0) if s.sampling_method != "sde" else s for s in settings]
    found = [replace(s, time_schedule="logit_normal") if s.sampling_method == "refine" else s for s in found]
    found = [replace(s, resample_noise=False) if s.sampling_method != "refine" else s for s in found]
    found = [replace(s, time_shift=1.0) if s.time_schedule != "shifted" else s for s in found]
    return list({setting.name: setting for setting in found}.values())


def check_sampling_setting(config: Config, setting: SamplingSetting) -> None:
    """Raise InputError for refinement without self-conditioning, or more guidance than a student was trained for."""
    if setting.sampling_method == "refine" and not config.objective.self_cond_prob:
        raise InputError("--sampler refine: each pass sees the last estimate, but this model was trained without "
                         "self-conditioning (self_cond_prob 0): use ode, sde or multistep")  # fmt: skip
    if config.distillation.student_steps is None:
        return
    teacher_cfg, most = config.distillation.teacher_cfg, config.objective.self_cond_cfg_max
    excess = "more guidance than this student was trained for"
    if setting.cfg != 1 and config.distillation.distill_objective != "progressive":
        raise InputError(f"--cfg {setting.cfg:g}: {excess}, which learned no guidance by a source: pass --cfg 1")
    if setting.cfg > 1 and teacher_cfg != 1:
        why = f"its teacher's guidance, --cfg {teacher_cfg:g}, is in its weights"
        raise InputError(f"--cfg {setting.cfg:g}: {excess}, {why}: pass --cfg 1")
    if setting.cfg > 1 and config.objective.label_drop_prob == 0:
        raise InputError(f"--cfg {setting.cfg:g}: {excess}, it never saw a text without its source: pass --cfg 1")
    if setting.self_cond_scale > most:
        raise InputError(f"--w {setting.self_cond_scale:g}: {excess}: pass at most {most:g}")
