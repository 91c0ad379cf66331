"""Runs every golden case found in a folder and prints its largest errors: `python tests/goldens.py DIR`.

DIR is tests/goldens, or a larger set of the same kinds of files: what tests/goldens leaves out of a file to stay
small (tests/goldens/README.md), a larger set may hold, and is then compared too.
An error is the largest absolute difference over the largest magnitude of the golden. Exit code 0 only if all hold:
1e-5 for outputs, 1e-4 for sampled latents, gradients and updated weights, tokens and stored values identical.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from elfcli.config.schema import DistillationSettings, ObjectiveSettings, OptimizationSettings
from elfcli.flow import distill, mmd, objective, sampler
from elfcli.flow.postprocess import cut_after_eos, shift_left
from elfcli.models.elf import ELF
from elfcli.models.encoder import encoder_mask
from elfcli.models.layers import graphdef_of
from elfcli.models.t5 import T5Encoder, T5Shape
from elfcli.optimizer import learning_rates, make_optimizer
from elfcli.parallel.backend import prepare
from elfcli.scoring.perplexity import score_tokens, unigram_entropies
from elfcli.training.students import feature_network
from elfcli.weights.encoder import read_encoder
from elfcli.weights.encoder_pickle import read_encoder_pickle
from elfcli.weights.judges import load_judge_network
from elfcli.weights.reference import (
    elf_from_reference,
    elf_to_reference,
    read_reference_checkpoint,
    shape_of,
    t5_from_reference,
    t5_to_reference,
)

OUTPUT, SAMPLED = 1e-5, 1e-4
KINDS = ("t5_reference", "t5_huggingface", "gpt2", "network", "objectives", "distillation", "generators", "samples",
         "refinements", "postprocess", "checkpoints", "encoder_pickle")  # fmt: skip
"""Methods of Goldens, each one kind of case."""


@dataclass(frozen=True)
class Row:
    case: str
    what: str
    absolute: float
    relative: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.relative <= self.limit


def row(case, what, ours, golden, limit) -> Row:
    """limit 0 asks for identity."""
    ours, golden = np.asarray(ours), np.asarray(golden)
    if ours.shape != golden.shape:
        return Row(case, f"{what}: shape {ours.shape}, golden {golden.shape}", np.inf, np.inf, limit)
    difference = np.abs(ours.astype(np.float64) - golden.astype(np.float64))
    absolute = float(np.max(difference, initial=0.0))
    if not np.isfinite(difference).all():
        absolute = np.inf
    magnitude = float(np.max(np.abs(golden.astype(np.float64)), initial=0.0))
    return Row(case, what, absolute, absolute / magnitude if magnitude else absolute, limit)


def tree_row(case, what, ours: dict, golden: dict, limit, *, some: bool = False) -> Row:
    """The worst row over two flat trees, each leaf against its own largest magnitude.

    some: the golden may hold only some of the arrays.
    """
    different = golden.keys() - ours.keys() if some and golden else ours.keys() ^ golden.keys()
    if different:
        return Row(case, f"{what}: paths differ {sorted(different)[:3]}", np.inf, np.inf, limit)
    leaves = [row(case, path, ours[path], golden[path], limit) for path in golden]
    worst = max(leaves, key=lambda r: r.relative)
    return Row(case, f"{what} ({len(leaves)} arrays)", max(r.absolute for r in leaves), worst.relative, limit)


def digest(flat: dict) -> str:
    """SHA-256 of a flat tree: of every path, dtype, shape and bytes in the order of the paths."""
    found = hashlib.sha256()
    for path in sorted(flat):
        array = np.ascontiguousarray(flat[path])
        found.update(f"{path} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return found.hexdigest()


def stored_row(case, name: str, ours: dict, golden: dict) -> Row:
    """Whether a stored tree was read to the last bit: against the golden's own arrays, or against their digest."""
    arrays = subtree(golden, name)
    if arrays:
        return tree_row(case, name, ours, arrays, 0)
    distance = 0.0 if digest(ours) == str(golden[f"sha256_{name}"]) else np.inf
    return Row(case, f"{name} ({len(ours)} arrays, SHA-256)", distance, distance, 0)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def subtree(flat: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix + "/"): value for key, value in flat.items() if key.startswith(prefix + "/")}


@partial(jax.jit, static_argnums=0)
def run_t5(shape: T5Shape, params, ids, mask):
    return nnx.merge(graphdef_of(T5Encoder, shape), params)(ids, mask)


@partial(jax.jit, static_argnums=(0, 1, 2))
def loss_and_gradients(
    shape, cfg: ObjectiveSettings, branch: str, params, batch: objective.Batch, draws: objective.Draws
):
    """Loss and gradients where every example of the batch takes one branch, `denoise` or `decode`."""
    num_examples = draws.drop_GxN.shape[1]

    def loss(params):
        counts = (0, num_examples) if branch == "denoise" else (num_examples, 0)
        model = nnx.merge(graphdef_of(ELF, shape), params)
        losses = objective.split_loss(model, batch, draws, cfg, counts)
        return losses[0 if branch == "denoise" else 1]

    return jax.value_and_grad(loss)(params)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def distilled(shape, cfg: ObjectiveSettings, settings: DistillationSettings, num_decode: int, networks, batch, draws):
    """({"target", "loss", "ce_loss", "pd_loss"}, gradients of the loss); the first examples, so many, decode."""
    num_distill = draws.drop_GxN.shape[1] - num_decode
    teacher = distill.Teacher(nnx.merge(graphdef_of(ELF, shape), networks[0]), settings)
    taught = teacher.teach(*jax.tree.map(lambda a: a[:, num_decode:], (batch, draws)), cfg, num_distill)

    def loss(params):
        pd, ce = teacher.student_losses(nnx.merge(graphdef_of(ELF, shape), params), taught, batch, draws, cfg)
        whole = (num_distill * pd + num_decode * ce) / (num_decode + num_distill)
        return whole, {"pd_loss": pd, "ce_loss": ce}

    (value, found), gradients = jax.value_and_grad(loss, has_aux=True)(networks[1])
    return found | {"loss": value, "target": taught.target_GxMxSxE[0]}, gradients


@partial(jax.jit, static_argnums=(0, 1, 2))
def generator(shape, cfg: ObjectiveSettings, settings: DistillationSettings, networks, batch, draws, more):
    """({"loss", "ce_loss", "mmd_loss" or "mse_loss"}, gradients of the loss, {"mid_...": what lies between}).

    more: (real noise, bootstrap passes) of MMD. The golden's examples that decode are moved in front.
    """
    num_decode = draws.drop_GxN.shape[1] - more[0].shape[1]
    if settings.distill_objective == "mmd":
        made = mmd.Mmd(feature_network(networks[0], shape, settings), settings, more[1], more[0])
    else:
        made = mmd.Ird(nnx.merge(graphdef_of(ELF, shape), networks[0]), settings.ird_passes)

    def loss(params):
        model = nnx.merge(graphdef_of(ELF, shape), params)
        weighted = mmd.by_share(cfg, draws.drop_GxN.shape[1])
        return objective.branch_loss(model, batch, draws, weighted, None, made.losses)

    (value, found), gradients = jax.value_and_grad(loss, has_aux=True)(networks[1])
    name = "mmd_loss" if settings.distill_objective == "mmd" else "mse_loss"
    losses = {"loss": value, "ce_loss": found["decode_loss"], name: found["denoise_loss"]}
    return losses, gradients, between(made, networks, shape, cfg, (batch, draws, num_decode))


def between(made, networks, shape, cfg, inputs):
    """What lies between inputs and losses, under the goldens' names."""
    model, (batch, draws, k) = nnx.merge(graphdef_of(ELF, shape), networks[1]), inputs
    draws, texts, text_draws, z = mmd.at_start(batch, draws, cfg, k)
    if isinstance(made, mmd.Ird):
        cold = mmd.refined(model, texts, text_draws, cfg, z, 0)
        prediction, _ = mmd.generated(model, (z, cold), batch, draws, cfg)
        return {"target": mmd.refined(made.frozen, texts, text_draws, cfg, z, made.passes)[0],
                "prediction": prediction[0]}  # fmt: skip
    seen = mmd.refined(model, texts, text_draws, cfg, z, made.num_bootstrap)
    fake, _ = mmd.generated(model, (z, seen), batch, draws, cfg)
    noises = z, made.real_noise_GxMxSxE * cfg.denoiser_noise_scale

    def features(x, noise):
        return mmd.token_features(made.features, (x, noise), texts, text_draws.w_GxN, cfg)

    real = features(texts.x0_GxNxSxE, noises[1])
    rows = (-1, made.settings.kernel_texts * real.shape[2], real.shape[3])
    fake_features = features(fake, z)
    return {
        "self_cond": seen[0],
        "fake": fake[0],
        "real_features": real.reshape(rows),
        "fake_features": fake_features.reshape(rows),
        "feature_grad": jax.grad(lambda f: made.distance(real, f))(fake_features).reshape(rows),
        "fake_grad": jax.grad(lambda x: made.distance(real, features(x, z)))(fake)[0],
    }


@partial(jax.jit, static_argnums=(2, 4))
def one_step(params, gradients, cfg: OptimizationSettings, rate, ema_decay):
    """Return (weights, EMA) after one optimizer step from the initial weights."""
    tx = make_optimizer(cfg)
    updates, _ = tx.update(gradients, tx.init(params), params, rate=rate)
    stepped = jax.tree.map(jnp.add, params, updates)
    return stepped, optax.incremental_update(stepped, params, 1 - ema_decay)


class Goldens:
    """The goldens of one folder; every method yields the rows of one kind of case that exists there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())

    def params(self, name: str) -> dict:
        return elf_from_reference(subtree(load(self.folder / name), "params"))

    def rows(self) -> Iterator[Row]:
        for kind in KINDS:
            yield from getattr(self, kind)()

    def t5_shape(self) -> T5Shape:
        encoder = dict(self.config["encoder"])
        return T5Shape(gated=encoder.pop("feed_forward_proj") != "relu", **encoder)

    def t5_params(self) -> dict:
        """The reference's flat T5 tree: stored beside its outputs, or else in the pickle of the same encoder."""
        return subtree(load(self.folder / "t5_encoder.npz"), "params") or read_encoder_pickle(
            self.folder / "encoder.pkl"
        )

    def t5_reference(self):
        path = self.folder / "t5_encoder.npz"
        if not path.exists():
            return
        golden, flat = load(path), self.t5_params()
        for mask in ("2d", "3d"):
            out = run_t5(self.t5_shape(), t5_from_reference(flat), golden["input_ids"], golden[f"mask_{mask}"])
            yield row("t5_encoder", f"output, {mask} mask", out, golden[f"out_{mask}"], OUTPUT)
        yield tree_row("t5_encoder", "tree round trip", t5_to_reference(t5_from_reference(flat)), flat, 0)

    def t5_huggingface(self):
        for path in sorted(self.folder.glob("t5_*/golden.npz")):
            golden = load(path)
            shape, params = read_encoder(str(path.parent))
            out = run_t5(shape, params, golden["input_ids"], golden["attention_mask"])
            yield row(path.parent.name, "output", out, golden["last_hidden_state"], OUTPUT)

    def gpt2(self):
        path = self.folder / "gpt2" / "golden.npz"
        if not path.exists():
            return
        golden = load(path)
        shape, params = load_judge_network(str(path.parent))
        eos = json.loads((path.parent / "config.json").read_text())["eos_token_id"]
        ids, mask = golden["input_ids"], golden["attention_mask"].astype(bool)
        nll, valid = score_tokens(shape, params, ids, mask, eos)
        nll, valid = np.asarray(nll), np.asarray(valid)
        entropy = unigram_entropies([list(r[m]) for r, m in zip(ids, mask, strict=True)], eos)
        per_sample = np.exp(np.sum(nll * valid, axis=1) / np.sum(valid, axis=1))
        yield row("gpt2", "scored positions", valid, golden["valid"], 0)
        yield row("gpt2", "NLL of scored positions", nll * valid, golden["nll"] * golden["valid"], OUTPUT)
        yield row("gpt2", "perplexity", np.exp(np.sum(nll * valid) / np.sum(valid)), golden["ppl"], OUTPUT)
        yield row("gpt2", "perplexity per sample", per_sample, golden["per_sample_ppl"], OUTPUT)
        yield row("gpt2", "entropy", entropy, golden["entropy"], OUTPUT)
        yield row("gpt2", "mean entropy", np.mean(entropy), golden["mean_entropy"], OUTPUT)

    def network(self):
        for path in sorted(self.folder.glob("elf_network*.npz")):
            golden, case = load(path), path.stem
            flat = subtree(golden, "params")
            params = elf_from_reference(flat)
            yield tree_row(case, "tree round trip", elf_to_reference(params), flat, 0)
            yield row(case, "dimensions against config.json", *self.dimensions(params), 0)
            if "x" not in golden:
                continue
            model = nnx.merge(graphdef_of(ELF, shape_of(params)), params)

            @jax.jit
            def run(model, x, t, w, decode, mask=None):
                features = model.transform(*model.embed(x, t, w, decode), mask_BxS=mask)
                return model.denoise(features), model.logits(features)

            x, t, w = golden["x"], golden["t"], golden["self_cond_cfg_scale"]
            zero, one = jnp.zeros_like(t), jnp.ones_like(t)
            yield row(case, "denoised", run(model, x, t, w, zero)[0], golden["denoised"], OUTPUT)
            masked = run(model, x, t, w, zero, golden["attention_mask"])[0]
            yield row(case, "denoised, masked", masked, golden["denoised_masked"], OUTPUT)
            without = run(model, x, t, None, zero)[0]
            yield row(case, "denoised, w not given", without, golden["denoised_without_cfg_tokens"], OUTPUT)
            decode_x, logits = run(model, x, one, w, one)
            yield row(case, "denoise output while decoding", decode_x, golden["decode_x"], OUTPUT)
            yield row(case, "decode logits", logits, golden["decode_logits"], OUTPUT)

    def dimensions(self, params):
        shape, want = shape_of(params), self.config["model"]
        names = ("hidden_size", "depth", "num_heads", "bottleneck_dim", "vocab_size")
        ours = [getattr(shape, name) for name in names]
        return [*ours, shape.latent_dim], [*(want[name] for name in names), want["text_encoder_dim"]]

    def objectives(self):
        for path in sorted(self.folder.glob("objective_*.npz")):
            yield from self.objective_case(path.stem, load(path))

    def objective_case(self, case: str, golden: dict):
        config = self.config
        cfg = ObjectiveSettings(
            t_eps=config["t_eps"],
            denoiser_noise_scale=config["denoiser_noise_scale"],
            decoder_noise_scale=config["decoder_noise_scale"],
        )  # what the draws depend on is not needed where they are given
        self_cond_prob = float(golden["setting_self_cond_prob"])
        params = self.params("elf_network.npz" if self_cond_prob else "elf_network_without_self_cond.npz")
        drop = golden["batch_label_drop_mask"]
        draws = objective.Draws(
            golden["draw_t"], golden["draw_noise"], golden["draw_self_cond_uniform"] < self_cond_prob,
            golden["draw_self_cond_cfg_scale"], golden["draw_decoder_lambda"], golden["draw_decoder_noise"],
            drop, np.zeros_like(drop),
        )  # fmt: skip
        cond, valid = golden["batch_cond_seq_mask"].astype(bool), golden["batch_attention_mask"].astype(bool)
        undropped = encoder_mask(cond, valid, np.zeros_like(drop))
        yield row(case, "encoder mask", undropped, golden["batch_encoder_attention_mask"], 0)

        t5 = t5_from_reference(self.t5_params())
        mask = encoder_mask(cond, valid, drop)
        latents = run_t5(self.t5_shape(), t5, golden["batch_input_ids"], mask)
        x0 = objective.drop_condition((latents - config["latent_mean"]) / config["latent_std"], cond, drop)
        counted = objective.loss_mask(cond, valid, str(golden["setting_pad_token"]))
        batch = objective.Batch(jnp.asarray(golden["batch_input_ids"]), cond, counted, x0)
        batch, draws = jax.tree.map(lambda a: jnp.asarray(a)[None], (batch, draws))  # one group

        gradients = {}
        for branch in ("denoise", "decode"):
            value, gradients[branch] = loss_and_gradients(shape_of(params), cfg, branch, params, batch, draws)
            yield row(case, f"{branch} loss", value, golden[f"{branch}_loss"], OUTPUT)
            flat = elf_to_reference(gradients[branch])
            theirs = subtree(golden, f"{branch}_grad")
            yield tree_row(case, f"{branch} gradients", flat, theirs, SAMPLED, some=True)

        optimization = OptimizationSettings(optimizer=config["adam_or_muon"], lr=config["lr"], clip_norm=config["clip"])
        rate = learning_rates(optimization, config["lr"], config["warmup_steps"], 1)[0]
        stepped, ema = one_step(params, gradients["denoise"], optimization, rate, config["ema_decay"])
        for name, ours in {"muon_step1": stepped, "ema_step1": ema}.items():
            theirs = self.after_a_step(golden, name)
            if theirs:
                what = "weights after a step" if name == "muon_step1" else "EMA after a step"
                yield tree_row(case, what, elf_to_reference(ours), theirs, SAMPLED)

    def distillation(self):
        for path in sorted(self.folder.glob("distill_*.npz")):
            if path.stem != "distill_networks":
                yield from self.distillation_case(path.stem, load(path))

    def distillation_case(self, case: str, golden: dict):
        """Examples that decode come first; the reference averages over all examples, as its coins gave them."""
        decode = golden["draw_decode"].astype(bool)
        order, num_decode = np.argsort(~decode, kind="stable"), int(decode.sum())
        cfg = ObjectiveSettings(
            t_eps=golden["setting_t_eps"],
            denoiser_noise_scale=golden["setting_denoiser_noise_scale"],
            decoder_noise_scale=golden["setting_decoder_noise_scale"],
        )
        steps = round(1 / float(golden["setting_pd_step_size"]))
        sub_steps = int(golden["setting_pd_teacher_steps"])
        settings = DistillationSettings(
            student_steps=steps, teacher_steps=steps * sub_steps, decode_with_condition=True
        )
        shares = golden.get("draw_teacher_u", np.zeros(0, np.float32)).reshape(len(order), sub_steps - 1)
        decoder_lambda = jax.nn.sigmoid(cfg.decoder_p_mean + cfg.decoder_p_std * golden["draw_decoder_lambda_normal"])
        draws = objective.Draws(
            golden["draw_student_u"], golden["draw_noise"], golden["draw_self_cond"].astype(bool), golden["draw_w"],
            decoder_lambda[..., None], golden["draw_decoder_noise"], np.zeros_like(decode), decode,
        )  # fmt: skip
        cond, valid = golden["batch_cond_seq_mask"].astype(bool), golden["batch_attention_mask"].astype(bool)
        counted = objective.loss_mask(cond, valid, str(golden["setting_pad_token"]))
        batch = objective.Batch(golden["batch_input_ids"], cond, counted, golden["x0"])
        batch, draws, shares = jax.tree.map(lambda a: jnp.asarray(a)[None, order], (batch, draws, shares))
        draws = distill.with_sub_times(draws, shares, settings)

        flat = load(self.folder / "distill_networks.npz")
        networks = [elf_from_reference(subtree(flat, name)) for name in ("teacher", "student")]
        found, gradients = distilled(shape_of(networks[1]), cfg, settings, num_decode, networks, batch, draws)
        yield row(case, "target", found["target"], golden["mid_target"][order[num_decode:]], OUTPUT)
        for name in ("loss", "ce_loss", "pd_loss"):
            yield row(case, name, found[name], golden[name], OUTPUT)
        theirs = subtree(golden, "grad")
        yield tree_row(case, "gradients", elf_to_reference(gradients), theirs, SAMPLED, some=True)

    def generators(self):
        for path in sorted([*self.folder.glob("mmd_*.npz"), *self.folder.glob("ird_*.npz")]):
            golden = load(path)
            if not (path.stem.startswith("mmd") and golden["setting_conditional"]):  # MMD is for free text
                yield from self.generator_case(path.stem, golden)

    def generator_case(self, case: str, golden: dict):
        """Examples that decode come last in the golden and first in a group."""
        n, k = int(golden["setting_num_distil"]), int(golden["setting_num_decode"])
        cfg = ObjectiveSettings(
            t_eps=golden["setting_t_eps"],
            denoiser_noise_scale=golden["setting_denoiser_noise_scale"],
            decoder_noise_scale=golden["setting_decoder_noise_scale"],
            decoder_prob=k / (n + k),
        )
        if case.startswith("mmd"):
            settings = DistillationSettings(
                distill_objective="mmd",
                sigma=float(golden["setting_sigma"]),
                kernel_texts=int(golden["setting_group"]),
                kernel_pairs="texts" if golden["setting_unbiased"] else "tokens",
                feature_layer=int(golden["setting_feature_layer"]),
            )
        else:
            settings = DistillationSettings(distill_objective="ird", ird_passes=int(golden["setting_ird_steps"]))
        scale, mean = float(golden["setting_decoder_p_std"]), float(golden["setting_decoder_p_mean"])
        decoder_lambda = jax.nn.sigmoid(mean + scale * golden["draw_decoder_lambda_normal"])[..., None]

        def rows(distilling, decoding):
            """One group, whose decoding examples come first; zeros stand for what a branch does not read."""
            parts = [np.zeros((count, *other.shape[1:]), other.dtype) if part is None else part
                     for part, other, count in ((decoding, distilling, k), (distilling, decoding, n))]  # fmt: skip
            return jnp.concatenate(parts)[None]

        def of_batch(array):
            return rows(array[:n], array[n:])

        w, nothing = of_batch(golden["draw_w"]), jnp.zeros((1, n + k))
        draws = objective.Draws(
            nothing, rows(golden["draw_noise"], None), nothing, w, rows(None, decoder_lambda),
            rows(None, golden["draw_decoder_noise"]), nothing, nothing,
        )  # fmt: skip
        cond, valid = (golden[f"batch_{name}"].astype(bool) for name in ("cond_seq_mask", "attention_mask"))
        counted = objective.loss_mask(cond, valid, str(golden["setting_pad_token"]))
        batch = objective.Batch(*map(of_batch, (golden["batch_input_ids"], cond, counted, golden["x0"])))
        flat = load(self.folder / "distill_networks.npz")
        networks = [elf_from_reference(subtree(flat, name)) for name in ("teacher", "student")]
        more = (
            jnp.asarray(golden.get("draw_real_noise", golden["draw_noise"]))[None],
            int(golden.get("setting_num_bootstrap", 0)),
        )
        found, gradients, mid = generator(shape_of(networks[1]), cfg, settings, networks, batch, draws, more)
        for name, ours in mid.items():
            theirs = golden[name] if name == "fake_grad" else golden[f"mid_{name}"]
            yield row(case, name.replace("_", " "), ours, theirs, SAMPLED if "grad" in name else OUTPUT)
        for name, ours in found.items():
            yield row(case, name, ours, golden[name], OUTPUT)
        if "grad_norm" in golden:
            yield row(case, "norm of the gradients", optax.global_norm(gradients), golden["grad_norm"], SAMPLED)
        if theirs := subtree(golden, "grad"):
            yield tree_row(case, "gradients", elf_to_reference(gradients), theirs, SAMPLED, some=True)

    def after_a_step(self, golden: dict, name: str) -> dict:
        """The reference's flat tree after the step: the golden's own, or from the checkpoint saved after it."""
        if "step1_in" not in golden:
            return subtree(golden, name)
        found = read_reference_checkpoint(self.folder / str(golden["step1_in"]))
        return elf_to_reference(found["params" if name == "muon_step1" else "ema_params1"])

    def samples(self):
        for path in sorted(self.folder.glob("sample_*.npz")):
            golden, case = load(path), path.stem
            if case.startswith("sample_no_cfg_tokens"):
                params = self.params("elf_network_without_cfg_tokens.npz")
            elif case == "sample_no_self_cond":
                params = self.params("elf_network_without_self_cond.npz")
            else:
                params = self.params("elf_network.npz")
            latents, tokens = self.sample(params, golden)
            yield row(case, "final latents", latents, golden["final_latents"], SAMPLED)
            yield row(case, "tokens", tokens, golden["tokens"], 0)

    def sample(self, params, golden):
        z0 = golden["z0"]
        cond = golden.get("cond_mask", np.zeros(z0.shape[:2])).astype(bool)
        condition = sampler.Condition(jnp.asarray(cond), jnp.asarray(golden.get("cond_latents", np.zeros_like(z0))))
        guidance = sampler.Guidance(jnp.float32(golden["cfg_scale"]), jnp.float32(golden["self_cond_cfg_scale"]))
        noise = jnp.asarray(golden.get("sde_noise", np.zeros((len(golden["t_steps"]), *z0.shape), np.float32)))
        noise *= self.config["denoiser_noise_scale"]

        @jax.jit
        def run(params):
            model = nnx.merge(graphdef_of(ELF, shape_of(params)), params)
            use_cfg = float(golden["cfg_scale"]) != 1
            predict = sampler.make_predict(model, condition, guidance, self.config["t_eps"], use_cfg=use_cfg)
            grid, gamma = jnp.tile(golden["t_steps"], (len(z0), 1)), float(golden["sde_gamma"])
            z, _ = sampler.solve(predict, jnp.asarray(z0), condition, grid, lambda i: noise[i], gamma)
            return z, sampler.decode(model, z, condition, guidance)

        return run(params)

    def refinements(self):
        for path in sorted(self.folder.glob("refine_*.npz")):
            golden, case = load(path), path.stem
            student = elf_from_reference(subtree(load(self.folder / "distill_networks.npz"), "student"))
            for name in [key.removeprefix("latents_") for key in golden if key.startswith("latents_")]:
                latents, tokens = self.refine(student, golden, int(name.split("_")[-1]), "resampled" in name)
                yield row(case, f"latents, {name} passes", latents, golden[f"latents_{name}"], SAMPLED)
                yield row(case, f"tokens, {name} passes", tokens, golden[f"tokens_{name}"], 0)

    def refine(self, params, golden, passes: int, resample: bool):
        z0, noise = jnp.asarray(golden["z0"]), jnp.asarray(golden["resample_noise"])
        noise *= float(golden["setting_denoiser_noise_scale"])
        condition = sampler.Condition(jnp.asarray(golden["cond_mask"]), jnp.asarray(golden["cond_latents"]))
        guidance = sampler.Guidance(jnp.float32(1), jnp.float32(golden["setting_w"]))

        @jax.jit
        def run(params):
            model = nnx.merge(graphdef_of(ELF, shape_of(params)), params)
            predict = sampler.make_predict(model, condition, guidance, self.config["t_eps"], use_cfg=False)
            grid = jnp.tile(jnp.linspace(0, 1, passes + 1), (len(z0), 1))
            step = sampler.refine(predict, condition, lambda i: jnp.where(i < 0, z0, noise[i - 1]), resample)
            z = sampler.integrate(step, z0, condition, grid).z_BxSxE
            return z, sampler.decode(model, z, condition, guidance)

        return run(params)

    def postprocess(self):
        path = self.folder / "postprocess.npz"
        if not path.exists():
            return
        golden = load(path)
        yield row("postprocess", "shifted", shift_left(golden["tokens"], golden["shift"]), golden["shifted"], 0)
        yield row("postprocess", "after eos", cut_after_eos(golden["tokens"], 1, 0), golden["after_eos"], 0)
        for kind in ("constant", "cosine"):
            cfg = OptimizationSettings(lr=0.002, min_lr=1e-4, lr_schedule=kind)
            rates = learning_rates(cfg, 0.002, 10, 100)
            yield row("postprocess", f"learning rate, {kind}", rates, golden[f"lr_{kind}"], OUTPUT)

    def stored(self) -> dict:
        """What the checkpoints hold."""
        return load(self.folder / "checkpoint_expected.npz")

    def checkpoints(self):
        if not (self.folder / "checkpoint_expected.npz").exists():
            return
        golden = self.stored()
        for kind in ("msgpack", "orbax"):
            for file in sorted((self.folder / f"checkpoint_{kind}").glob("checkpoint_*")):
                case, found = f"checkpoint_{kind}", read_reference_checkpoint(file)
                for name in ("params", "ema_params1"):
                    yield stored_row(case, name, elf_to_reference(found[name]), golden)
                yield row(case, "step, epoch", [found["step"], found["epoch"]], [golden["step"], golden["epoch"]], 0)

    def encoder_pickle(self):
        path = self.folder / "encoder.pkl"
        if not path.exists():
            return
        golden = load(self.folder / "t5_encoder.npz")
        yield stored_row("encoder.pkl", "params", read_encoder_pickle(path), golden)


def main(folder: str) -> int:
    jax.config.update("jax_default_matmul_precision", "highest")
    prepare()
    rows = []
    print(f"{'case':34} {'what':42} {'absolute':>10} {'relative':>10} {'limit':>8}")
    for result in Goldens(Path(folder)).rows():
        rows.append(result)
        verdict = "" if result.holds else "  FAILS"
        limit = f"{result.limit:.0e}" if result.limit else "same"
        print(f"{result.case:34} {result.what:42} {result.absolute:10.2e} {result.relative:10.2e} {limit:>8}{verdict}")
    failed = sum(not result.holds for result in rows)
    print(f"{len(rows) - failed} hold, {failed} fail")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "config.json").is_file():
        sys.exit("usage: python tests/goldens.py DIR, where DIR holds config.json and the goldens")
    sys.exit(main(sys.argv[1]))
