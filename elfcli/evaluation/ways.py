"""Ways to sample: one setting of the sampler, lists of them, and the preset's nearest to some options."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from elfcli.config.schema import SamplingSetting


@dataclass(frozen=True)
class Setting:
    """One way to sample. steps: network steps N; gamma 0 is the ODE; cfg and w are guidance scales, 1 is off."""

    sampler: str = "ode"
    steps: int = 64
    cfg: float = 1.0
    w: float = 1.0
    time_schedule: str = "logit_normal"
    gamma: float = 0.0

    @property
    def name(self) -> str:
        gamma = f"-gamma{self.gamma:g}" if self.sampler == "sde" else ""
        return f"{self.sampler}{self.steps}{gamma}-cfg{self.cfg:g}-w{self.w:g}-{self.time_schedule}"


def settings_of(presets: Sequence[SamplingSetting]) -> list[Setting]:
    """Every combination of every preset."""
    return [
        Setting(preset.sampling_method, steps, cfg, w, preset.time_schedule, preset.sde_gamma)
        for preset in presets
        for steps, cfg, w in product(preset.num_sampling_steps, preset.cfgs, preset.self_cond_cfg_scales)
    ]


def chosen_setting(presets, flags: dict):
    """The preset's setting that is nearest in sampler and steps, with what the flags say in its place.

    An SDE without a gamma takes that of the nearest preset, of the published ones where the model's has no SDE.
    """
    from dataclasses import replace

    from elfcli.config.resolve import presets_dir, resolve

    pass

    def nearest(settings):
        wanted = flags["steps"]
        return min(
            settings, key=lambda s: (flags["sampler"] not in (None, s.sampler), abs((wanted or s.steps) - s.steps))
        )

    given = {name: value for name, value in flags.items() if value is not None}
    found = nearest(settings_of(presets))
    if flags["sampler"] == "sde" and found.sampler != "sde":
        published = resolve(files=[presets_dir() / "sampling" / "uncond.toml"], environ={}).config.sampling
        found = replace(found, gamma=nearest(settings_of(published)).gamma)
    return replace(found, **given)


MOST_STEPS, MOST_SETTINGS = 1_000_000, 1000


def combinations(presets, wanted: dict[str, list]) -> list:
    """Every combination of the wanted values, each filled up as `elf sample` does it; the presets where none is."""
    from itertools import product
    from math import prod

    from elfcli.errors import InputError

    pass

    if all(values == [None] for values in wanted.values()):
        return distinct(settings_of(presets))
    count = prod(map(len, wanted.values()))
    if count > MOST_SETTINGS:
        raise InputError(f"{count:,} settings are more than {MOST_SETTINGS:,}; ask for fewer values")
    found = distinct(
        chosen_setting(presets, dict(zip(wanted, values, strict=True))) for values in product(*wanted.values())
    )
    if wanted["gamma"] != [None] and all(setting.sampler == "ode" for setting in found):
        raise InputError("--gamma: only the SDE has one; add --sampler sde")
    return found


def distinct(settings) -> list:
    """The settings without doubles; gamma means nothing to the ODE."""
    from dataclasses import replace

    found = [replace(setting, gamma=0.0) if setting.sampler == "ode" else setting for setting in settings]
    return list({setting.name: setting for setting in found}.values())
