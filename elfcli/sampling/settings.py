"""Ways to sample: one setting of the sampler, the settings of presets, and those that options ask for."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from elfcli.config.presets import presets_dir
from elfcli.config.resolve import resolve
from elfcli.config.schema import Config, SamplingPreset
from elfcli.config.values import BadValue, check_sampling_field, check_sampling_item, parse_toml_value
from elfcli.errors import InputError

SAMPLING_OPTIONS = {
    "sampling_method": "--sampler",
    "num_sampling_steps": "--steps",
    "sde_gamma": "--gamma",
    "cfg": "--cfg",
    "self_cond_cfg_scale": "--sc-cfg",
    "time_schedule": "--time-schedule",
    "time_shift": "--time-shift",
    "candidates": "--candidates",
}
"""Fields of a Setting, and the option that sets each."""
OPTION_NAMES = {"self_cond_cfg_scale": "--sc-cfg (or --w)"}
LISTS = {"num_sampling_steps": "num_sampling_steps", "cfg": "cfgs", "self_cond_cfg_scale": "self_cond_cfg_scales"}
"""Fields that are lists in a preset, and their name there."""
MAX_SETTINGS = 1000


@dataclass(frozen=True)
class SamplingSetting:
    """One way to sample, with the names of `SamplingSetting`; the ODE ignores sde_gamma."""

    sampling_method: str = "ode"
    num_sampling_steps: int = 64
    cfg: float = 1.0
    self_cond_cfg_scale: float = 1.0
    time_schedule: str = "logit_normal"
    sde_gamma: float = 0.0
    time_shift: float = 1.0
    candidates: int = 1

    @property
    def name(self) -> str:
        gamma = f"-gamma{self.sde_gamma:g}" if self.sampling_method == "sde" else ""
        steps = f"{self.sampling_method}{self.num_sampling_steps}"
        best_of = f"-of{self.candidates}" if self.candidates > 1 else ""
        return f"{steps}{gamma}-cfg{self.cfg:g}-w{self.self_cond_cfg_scale:g}-{self.grid}{best_of}"

    @property
    def grid(self) -> str:
        """The time schedule, with what else it depends on."""
        return self.time_schedule + (f"{self.time_shift:g}" if self.time_schedule == "shifted" else "")

    @property
    def options(self) -> str:
        """The same setting as options of `elf sample`."""
        unused = {"sde_gamma"} if self.sampling_method != "sde" else set()
        unused |= {"time_shift"} if self.time_schedule != "shifted" else set()
        unused |= {"candidates"} if self.candidates == 1 else set()
        names = [name for name in SAMPLING_OPTIONS if name not in unused]
        return " ".join(f"{SAMPLING_OPTIONS[name]} {getattr(self, name)}" for name in names)


def settings_of(presets: Sequence[SamplingPreset]) -> list[SamplingSetting]:
    """Every combination of every preset."""
    return [
        SamplingSetting(
            one.sampling_method, steps, cfg, w, one.time_schedule, one.sde_gamma, one.time_shift, one.candidates
        )
        for one in presets
        for steps, cfg, w in product(one.num_sampling_steps, one.cfgs, one.self_cond_cfg_scales)
    ]


def option_values(texts: Mapping[str, str | None]) -> dict[str, list]:
    """{field of a Setting: its values}, without duplicates, from comma-separated texts; None: option not given.

    InputError names the option and the value that the schema refuses.
    """
    found: dict[str, list] = {}
    for name, text in texts.items():
        for word in text.split(",") if text is not None else ():
            value = parse_toml_value(word.strip())
            try:
                if name in LISTS:
                    value = check_sampling_item(LISTS[name], value)
                else:
                    value = check_sampling_field(name, value)
            except BadValue as error:
                option = OPTION_NAMES.get(name, SAMPLING_OPTIONS[name])
                raise InputError(f"{option} {text}: '{word.strip()}': {error}") from None
            found[name] = [*found.get(name, ()), value]
    return {name: list(dict.fromkeys(values)) for name, values in found.items()}


def one_value_each(texts: Mapping[str, str | None]) -> dict[str, Any]:
    """As `option_values`, one value of each field; InputError where an option has several."""
    found = option_values(texts)
    for name, values in found.items():
        if len(values) > 1:
            raise InputError(f"{SAMPLING_OPTIONS[name]} {texts[name]}: one value is sampled; `elf sweep` takes several")
    return {name: values[0] for name, values in found.items()}


def chosen_setting(presets: Sequence[SamplingPreset], given: Mapping[str, Any]) -> SamplingSetting:
    """The presets' setting that is nearest in sampler and steps, with the given fields replaced.

    An SDE without a given gamma takes that of the nearest SDE preset, of the published ones where the presets have
    none.
    """
    sampler, steps = given.get("sampling_method"), given.get("num_sampling_steps")

    def nearest(settings: list[SamplingSetting]) -> SamplingSetting:
        def distance(setting: SamplingSetting):
            return sampler not in (None, setting.sampling_method), abs((steps or 0) - setting.num_sampling_steps)

        return min(settings, key=distance if steps else lambda setting: distance(setting)[:1])

    found = nearest(settings_of(presets))
    if sampler == "sde" and found.sampling_method != "sde":
        published = resolve(files=[presets_dir() / "sampling" / "uncond.toml"], environ={}).config.sampling
        found = replace(found, sde_gamma=nearest(settings_of(published)).sde_gamma)
    return replace(found, **given)


def combinations(presets: Sequence[SamplingPreset], wanted: Mapping[str, list]) -> list[SamplingSetting]:
    """Every combination of the wanted values, each completed as by `elf sample`; the presets where none is wanted."""
    if not wanted:
        return without_repeats(settings_of(presets))
    count = prod(map(len, wanted.values()))
    if count > MAX_SETTINGS:
        raise InputError(f"{count:,} settings are more than {MAX_SETTINGS:,}; ask for fewer values")
    return without_repeats(
        chosen_setting(presets, dict(zip(wanted, values, strict=True))) for values in product(*wanted.values())
    )


def one_setting(config: Config, given: Mapping[str, Any]) -> SamplingSetting:
    """The chosen setting of a model's presets. InputError for a given field without effect."""
    found = chosen_setting(config.sampling, given)
    check_used(config, given, [found])
    return found


def check_used(config: Config, given: Collection[str], settings: Sequence[SamplingSetting]) -> None:
    """InputError for a given field that none of the settings uses."""
    if "sde_gamma" in given and all(setting.sampling_method != "sde" for setting in settings):
        raise InputError("--gamma: only the SDE has one; add --sampler sde")
    if "time_shift" in given and all(setting.time_schedule != "shifted" for setting in settings):
        raise InputError("--time-shift: only the shifted grid has one; add --time-schedule shifted")
    if "cfg" in given and not config.data.max_input_length and any(setting.cfg != 1 for setting in settings):
        raise InputError("--cfg: guidance towards the source, and this model writes free texts; --sc-cfg guides those")


def without_repeats(settings: Iterable[SamplingSetting]) -> list[SamplingSetting]:
    """The settings without duplicates, those of the ODE without gamma, and other grids than shifted without shift."""
    found = [replace(s, sde_gamma=0.0) if s.sampling_method != "sde" else s for s in settings]
    found = [replace(s, time_shift=1.0) if s.time_schedule != "shifted" else s for s in found]
    return list({setting.name: setting for setting in found}.values())


def check_sampling_setting(config: Config, setting: SamplingSetting) -> None:
    """InputError for candidates of texts without a source, and for more guidance than a student was made for."""
    if setting.candidates > 1 and not config.data.max_input_length:
        raise InputError(f"--candidates {setting.candidates}: the one most like the others is kept, which is for texts "
                         "with sources; this model writes free texts")  # fmt: skip
    made, most = config.distillation, config.objective.self_cond_cfg_max
    if made.student_steps is None:
        return
    if setting.cfg > 1 and (made.teacher_cfg != 1 or config.objective.label_drop_prob == 0):
        has = "it never saw a text without its source" if made.teacher_cfg == 1 else (
            f"its teacher's guidance, --cfg {made.teacher_cfg:g}, is in its weights")  # fmt: skip
        raise InputError(f"--cfg {setting.cfg:g}: more guidance than this student was made for, {has}: give --cfg 1")
    if (w := setting.self_cond_cfg_scale) > most:
        raise InputError(f"--sc-cfg {w:g}: more guidance than this student was made for: give at most {most:g}")
