"""Networks of torchvision, timm and transformers, random and small: nothing in them is trivially zero.

One of timm is called ``timm:NAME``, one of transformers ``transformers:TYPE``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
import zoo_transformers
from torch import Tensor, nn
from zoo_torchvision import torchvision_models

ROWS = 2
SIZE = 64
"""Height and width of the images, where a network accepts them."""

SIZES = {"inception_v3": 139, "maxvit_t": 224, "vit_h_14": 56}
"""The least that the others accept: maxvit divides every map into windows of 7."""

SETTINGS: dict[str, dict[str, Any]] = {
    # Its auxiliary classifier needs images of 299, in train mode only.
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "googlenet": {"init_weights": False},
}


TIMM = (
    "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_1024_20_ks9_p14", "convnext_atto_rms",
    "cpubone_nano", "crossvit_tiny_240", "cs3darknet_focus_s", "csatv2", "cspnext_tiny", "davit_tiny",
    "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b", "eca_botnext26ts_256",
    "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "efficientvim_m1",
    "efficientvit_b0", "efficientvit_m0", "ese_vovnet19b_slim_dw", "eva02_tiny_patch14_224",
    "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny", "ghostnet_050", "gmlp_ti16_224",
    "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small", "iformer_t",
    "inception_next_atto", "inception_v3", "inception_v4", "lcnetv2_small", "legacy_seresnet18",
    "legacy_xception", "levit_128s", "lowformer_b0", "mambaout_femto", "maxvit_pico_rw_256",
    "mnasnet_small", "mobilenetv3_small_050", "mobileone_s1", "mobilevit_xxs", "mvitv2_tiny",
    "nest_tiny", "nextvit_small", "nf_regnet_b0", "pit_ti_224", "poolformerv2_s12", "pvt_v2_b0",
    "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m0_9", "res2net50_14w_8s", "resnest26d",
    "resnet18", "resnetv2_18", "rexnet_100", "sam2_hiera_tiny", "selecsls42", "sequencer2d_s",
    "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_224", "swinv2_tiny_window8_256", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224",
    "tresnet_m", "twins_svt_small", "visformer_tiny", "vit_srelpos_small_patch16_224",
    "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "vitamin_small_224", "volo_d1_224", "xception41p",
    "xcit_nano_12_p8_224",
)  # fmt: skip
"""The smallest network of each of timm 1.0.31's files, where it has fewer than 45 million parameters."""

Batch = Tensor | dict[str, Tensor]


def names(family: str = "torchvision") -> list[str]:
    """All image classification networks of the installed torchvision; one of each family of the others."""
    if family == "torchvision":
        models = torchvision_models()
        return list(models.list_models(module=models))
    known = TIMM if family == "timm" else zoo_transformers.names()
    return [f"{family}:{name}" for name in known]


def build(name: str, dtype: torch.dtype, created: bool = False) -> nn.Module:
    """A network in train mode, without chance, with random parameters and statistics.

    Args:
        name: its library's, see above.
        dtype: of its parameters; they are the same numbers in every type.
        created: leave its parameters and statistics as its library creates them.

    Raises:
        SystemExit: no network has that name, or the library is not installed.
    """
    family, _, known = name.rpartition(":")
    torch.manual_seed(0)
    network = MAKERS[family](known)
    if not created:
        randomise_(network, batch(name, torch.float32, rows=8))
    return without_chance_(network).to(dtype).train()


def _of_torchvision(name: str) -> nn.Module:
    models = torchvision_models()
    if name not in names():
        raise SystemExit(f"torchvision has no classification network {name!r}; see names() for those it has.")
    settings = dict(SETTINGS.get(name, {}))
    if name.startswith("vit_"):  # these have a position for every patch
        settings["image_size"] = SIZES.get(name, SIZE)
    return models.get_model(name, weights=None, **settings)  # type: ignore[no-any-return]


def _of_timm(name: str) -> nn.Module:
    return _timm().create_model(name, pretrained=False)  # type: ignore[no-any-return]


def _timm() -> ModuleType:
    """timm, which needs a torchvision that loads."""
    torchvision_models()
    if importlib.util.find_spec("timm") is None:
        raise SystemExit(
            "This needs timm, which is not installed. Remedy: pip install --no-deps timm==1.0.31"
        )
    with contextlib.redirect_stderr(io.StringIO()):
        import timm
    return timm  # type: ignore[no-any-return]


MAKERS: dict[str, Callable[[str], nn.Module]] = {
    "": _of_torchvision,
    "timm": _of_timm,
    "transformers": zoo_transformers.build,
}
"""What makes a network of each library."""


def batch(name: str, dtype: torch.dtype, rows: int = ROWS, seed: int = 0) -> Batch:
    """(rows, 3, height, width), standard normal; of transformers what its networks are called with."""
    family, _, known = name.rpartition(":")
    if family == "transformers":
        return zoo_transformers.batch(known, dtype, rows, seed)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, *_image(family, known), generator=generator).to(dtype)


def _image(family: str, name: str) -> tuple[int, int, int]:
    """Channels, height and width."""
    if family == "timm":
        settings = _timm().get_pretrained_cfg(name)
        fixed = settings is None or settings.fixed_input_size
        return settings.input_size if fixed or settings is None else settings.min_input_size or (3, 96, 96)
    size = SIZES.get(name, SIZE)
    return 3, size, size


def call(network: Callable[..., Any], inputs: Batch, **arguments: Any) -> Any:
    """What a network returns for copies of a batch."""
    if isinstance(inputs, Mapping):
        return network(**{name: x.clone() for name, x in inputs.items()}, **arguments)
    return network(inputs.clone(), **arguments)


@torch.no_grad()
def randomise_(network: nn.Module, x: Batch) -> nn.Module:
    """Spread what initialisation left constant, and give random values to the running statistics.

    Each statistic is taken from what arrives at its layer, then moved by a third of a standard deviation and
    by factors between a half and two, before the layers behind it are run: activations stay of a size through
    a hundred layers, and rounding errors small.
    """
    for parameter in network.parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            parameter.copy_(_spread(parameter))
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(_unsettle_) for norm in norms]
    call(network.eval(), x)
    for hook in hooks:
        hook.remove()
    return network


def _unsettle_(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    (x,) = arguments
    others = [d for d in range(x.ndim) if d != 1]
    mean, variance = x.mean(others), x.var(others)
    variance.clamp_min_(variance.mean() / 4)
    norm.running_mean.copy_(mean + torch.randn_like(mean) * variance.sqrt() / 3)
    norm.running_var.copy_(variance * (0.5 + 1.5 * torch.rand_like(variance)))


def _spread(constant: Tensor) -> Tensor:
    """What a constant parameter becomes: a weight, a scale, or a shift."""
    if constant.ndim >= 2 and constant.shape[0] > 1 and constant[0].numel() > 1:
        return torch.randn_like(constant) / math.sqrt(constant[0].numel())
    value = constant.flatten()[0].item()
    if value == 0:
        return 0.3 * torch.randn_like(constant)
    return 0.5 * max(abs(value), 0.3) * (1 + 2 * torch.rand_like(constant))  # layer scales start at 1e-6


def without_chance_(network: nn.Module) -> nn.Module:
    """Set the probability of every dropout and stochastic depth to zero: a narrower network draws others."""
    chances = ("p", "dropout", "attention_dropout", "drop_rate", "drop_prob", "layerdrop")
    for module in network.modules():
        for holder, attribute in itertools.product((module, getattr(module, "config", None)), chances):
            if isinstance(getattr(holder, attribute, None), float):
                setattr(holder, attribute, 0.0)
    return network
