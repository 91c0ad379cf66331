import json
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from elfcli.config.render import as_recorded, by_hand, to_json, to_toml
from elfcli.config.resolve import load_config, resolve, resolve_run
from elfcli.config.schema import SECTION_OF, SECTIONS, Config

configs = st.builds(
    Config,
    data=st.builds(type(Config().data), task=st.none() | st.text(max_size=20), data_path=st.none() | st.text()),
    encoder=st.builds(type(Config().encoder), latent_mean=st.floats(-1e30, 1e30) | st.just("measure")),
    network=st.builds(type(Config().network), model=st.none() | st.text(max_size=5)),
    optimization=st.builds(type(Config().optimization), blr=st.floats(1e-300, 1e300), lr=st.floats(0.5, 1.0)),
    training=st.builds(
        type(Config().training), seed=st.integers(0, 2**32 - 1), steps=st.none() | st.integers(1, 2**31 - 1)
    ),
    tracking=st.builds(type(Config().tracking), wandb_resume=st.none() | st.booleans() | st.text(max_size=5)),
)


@given(config=configs)
@settings(deadline=None)
def test_any_config_reads_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_bytes(to_toml(config).encode())
    assert load_config(path) == config


def test_presets_do_not_creep_into_what_a_run_left_unset(tmp_path):
    resolved = resolve(task="toy-de-en", sets=["lr=none"], environ={})
    path = tmp_path / "config.toml"
    path.write_text(to_toml(resolved))
    assert load_config(path) == resolved.config
    assert load_config(path).optimization.lr is None


def test_every_value_names_its_layer(tmp_path):
    resolved = resolve(task="toy-de-en", sets=["seed=5"], environ={"ELF_KEEP_CHECKPOINTS": "2"})
    toml = to_toml(resolved)
    assert "seed = 5  # --set\n" in toml
    assert "keep_checkpoints = 2  # environment\n" in toml
    assert "# weight_decay" not in toml and "# data_path is not set  # default\n" in toml
    assert any(line.startswith("max_length = ") and "task preset toy-de-en:" in line for line in toml.splitlines())
    assert "# default" not in to_toml(resolved, origins=False)
    for name in SECTION_OF:
        assert f"{name} = " in toml or f"# {name} is not set" in toml


def test_other_readers_agree():
    config = resolve(task="owt", sets=["lr=1e-5"], environ={})
    plain = config.config.model_dump(mode="json")
    from_toml = tomllib.loads(to_toml(config))
    set_values = [{name: value for name, value in one.items() if value is not None} for one in plain["sampling"]]
    assert from_toml["optimization"]["lr"] == 1e-5 and from_toml["sampling"] == set_values
    assert json.loads(to_json(config)) == json.loads(to_json(config.config)) == plain


def test_what_was_set_by_hand_stands_first_and_survives_in_a_run(tmp_path):
    resolved = resolve(task="toy-de-en", sets=["lr=none", "blr=2e-3"], environ={"ELF_KEEP_CHECKPOINTS": "2"})
    path = tmp_path / "config.toml"
    path.write_text(to_toml(resolved))
    again = as_recorded(resolve_run(path, ["seed=5"]), path)
    head = by_hand(again)
    assert "#   blr = 0.002  # --set\n" in head and "#   keep_checkpoints = 2  # environment\n" in head
    assert "#   seed = 5  # --set\n" in head and "max_length" not in head
    assert "peak 0.0005 (blr 0.002 * 64 examples * 1 / 256)" in head
    assert str(again.origins["max_length"]) == str(resolved.origins["max_length"])
    described = head + to_toml(again, describe=True)
    path.write_text(described)
    assert load_config(path) == again.config
    assert f"# {SECTIONS['training'].model_fields['seed'].description}\nseed = 5  # --set\n" in described
    assert "set by hand: nothing" in by_hand(resolve(environ={}))
