"""The network of `jalpose.models.hourglass` in PyTorch, and PyTorch's ways to norms.

Used by `bench_peers.py`. Layout NCHW; modules bear the names of the Linen ones, so that
`carry_over` finds them. Each `by_...(network)` returns a function (images, targets) ->
squared norms [N] of the per-example gradients over all parameters; it keeps the network
for itself.
"""

import numpy as np
import torch
import torch.nn.functional as F
from flax import traverse_util
from torch import nn


class FrozenNorm(nn.BatchNorm2d):
    """Batch norm by running statistics in training mode too.

    The hooks of Opacus do nothing outside training mode.
    """

    def forward(self, x):
        """[B, C, h, w] -> the same shape."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class Conv(nn.Module):
    """Convolution with bias, then batch norm and ReLU where `norm` is given."""

    def __init__(self, inputs, outputs, norm=None, kernel=1, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2)
        self.norm = norm(outputs, eps=1e-5) if norm else None

    def forward(self, x):
        """[B, inputs, h, w] -> [B, outputs, h / stride, w / stride]."""
        x = self.conv(x)
        return x if self.norm is None else F.relu(self.norm(x))


class Residual(nn.Module):
    """Pre-activation bottleneck plus skip."""

    def __init__(self, inputs, outputs, norm):
        super().__init__()
        half = outputs // 2
        self.norm1 = norm(inputs, eps=1e-5)
        self.conv1 = Conv(inputs, half)
        self.norm2 = norm(half, eps=1e-5)
        self.conv2 = Conv(half, half, kernel=3)
        self.norm3 = norm(half, eps=1e-5)
        self.conv3 = Conv(half, outputs)
        self.skip = Conv(inputs, outputs) if inputs != outputs else None

    def forward(self, x):
        """[B, inputs, h, w] -> [B, outputs, h, w]."""
        y = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        y = self.conv3(F.relu(self.norm3(y)))
        return (x if self.skip is None else self.skip(x)) + y


class Hourglass(nn.Module):
    """One hourglass of `depth` levels."""

    def __init__(self, depth, width, norm):
        super().__init__()
        self.depth = depth
        self.up = Residual(width, width, norm)
        self.low1 = Residual(width, width, norm)
        if depth > 1:
            self.inner = Hourglass(depth - 1, width, norm)
        else:
            self.low2 = Residual(width, width, norm)
        self.low3 = Residual(width, width, norm)

    def forward(self, x):
        """[B, width, h, w] -> the same shape."""
        low = self.low1(F.max_pool2d(x, 2))
        low = self.inner(low) if self.depth > 1 else self.low2(low)
        low = self.low3(low)
        return self.up(x) + F.interpolate(low, scale_factor=2, mode="nearest")


class StackedHourglass(nn.Module):
    """Images [B, 3, H, W] -> heatmaps [B, S, J, H / 4, W / 4]."""

    def __init__(self, joints, *, stacks, channels, depth, norm=nn.BatchNorm2d):
        super().__init__()
        width = channels
        self.stacks = stacks
        self.stem = Conv(3, width // 4, norm, kernel=7, stride=2)
        self.stem1 = Residual(width // 4, width // 2, norm)
        self.stem2 = Residual(width // 2, width // 2, norm)
        self.stem3 = Residual(width // 2, width, norm)
        for s in range(stacks):
            self.add_module(f"hourglass{s}", Hourglass(depth, width, norm))
            self.add_module(f"features{s}", Residual(width, width, norm))
            self.add_module(f"project{s}", Conv(width, width, norm))
            self.add_module(f"heatmaps{s}", Conv(width, joints))
            if s + 1 < stacks:
                self.add_module(f"merge_maps{s}", Conv(joints, width))
                self.add_module(f"merge_features{s}", Conv(width, width))

    def forward(self, images):
        """See the class."""
        x = F.max_pool2d(self.stem1(self.stem(images)), 2)
        x = self.stem3(self.stem2(x))
        heatmaps = []
        for s in range(self.stacks):
            y = getattr(self, f"features{s}")(getattr(self, f"hourglass{s}")(x))
            y = getattr(self, f"project{s}")(y)
            heatmaps.append(getattr(self, f"heatmaps{s}")(y))
            if s + 1 < self.stacks:
                maps = getattr(self, f"merge_maps{s}")(heatmaps[-1])
                x = x + maps + getattr(self, f"merge_features{s}")(y)
        return torch.stack(heatmaps, 1)


_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def carry_over(network: nn.Module, variables: dict) -> None:
    """Set parameters and running statistics from Linen's.

    Args:
      network: as the Linen module was configured.
      variables: `params` and `batch_stats` of the Linen module.

    Raises:
      ValueError: where the two do not have the same tensors.
    """
    state = {}
    for (_, *path, name), leaf in traverse_util.flatten_dict(variables).items():
        array = np.array(leaf)  # A copy: arrays of JAX are read-only.
        if name == "kernel":
            array = array.transpose(3, 2, 0, 1)
        state[".".join([*path, _NAMES[name]])] = torch.from_numpy(array)
    missing, unknown = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        raise ValueError(f"not carried over: {missing}; of no use: {unknown}")


def torch_losses(network, images, targets):
    """The training loss, all joints present: [N, 3, H, W], [N, J, h, w] -> [N]."""
    return (network(images) - targets[:, None]).square().mean((1, 2, 3, 4))


def squared_rows(gradients):
    """Per-example gradients, a list of [N, ...] -> squared norms [N]."""
    return sum(gradient.flatten(1).square().sum(1) for gradient in gradients)


def batched_gradient(network):
    """The yardstick: gradients of the summed loss."""
    parameters = list(network.parameters())

    def run(images, targets):
        total = torch_losses(network, images, targets).sum()
        return torch.autograd.grad(total, parameters)

    return run


def by_func(network, chunk):
    """vmap(grad) over the functional form of the network."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    buffers = dict(network.named_buffers())

    def loss(parameters, image, target):
        def call(images):
            return torch.func.functional_call(network, (parameters, buffers), images)

        return torch_losses(call, image[None], target[None])[0]

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0), chunk_size=chunk)
    return lambda images, targets: squared_rows(
        gradients(parameters, images, targets).values()
    )


def norm_gradients(layer, inputs, cotangent):
    """Per-example gradients of a batch norm's weight and bias, each [N, C]."""
    normed = F.batch_norm(inputs, layer.running_mean, layer.running_var, eps=layer.eps)
    return torch.einsum("nchw,nchw->nc", cotangent, normed), cotangent.sum((2, 3))


def conv_gradients(layer, inputs, cotangent):
    """Per-example gradients of a convolution's weight and bias."""
    if layer.kernel_size == layer.stride == (1, 1):
        patches = inputs.flatten(2)
    else:
        patches = F.unfold(
            inputs, layer.kernel_size, padding=layer.padding, stride=layer.stride
        )
    cotangent = cotangent.flatten(2)
    return torch.einsum("nop,nkp->nok", cotangent, patches), cotangent.sum(2)


def by_hooks(network):
    """Hooks keep inputs and cotangents of each layer; unfold and einsum.

    This way at its best: a layer's gradients are squared and dropped at once, 1x1
    convolutions are not unfolded, and parameters are frozen, so that no batched
    gradient is computed besides.
    """
    rules = {torch.nn.Conv2d: conv_gradients, torch.nn.BatchNorm2d: norm_gradients}
    found, kept = [], {}
    network.requires_grad_(False)

    def forward_hook(layer, inputs, output):
        kept[layer] = inputs[0].detach()

    def backward_hook(layer, by_inputs, by_output):
        gradients = rules[type(layer)](layer, kept.pop(layer), by_output[0])
        found.append(squared_rows(gradients))

    for layer in network.modules():
        if type(layer) in rules:
            layer.register_forward_hook(forward_hook)
            layer.register_full_backward_hook(backward_hook)

    def run(images, targets):
        images = images.detach().requires_grad_()  # or nothing would be pulled back
        torch.autograd.grad(torch_losses(network, images, targets).sum(), images)
        norms = sum(found)
        found.clear()
        return norms

    return run


def by_opacus(network, *, strict=True, fast=False):
    """Opacus, by grad samples.

    Its validation, `strict`, refuses batch norm, and its hooks do nothing outside
    training mode: without it the network is to be built with `FrozenNorm`, for which
    a sampler is registered here. `fast`: norms alone, its fast gradient clipping.
    """
    wrapped = _in_opacus(network, strict=strict, fast=fast)

    def run(images, targets):
        torch_losses(wrapped, images, targets).sum().backward()
        norms = _norms_in(wrapped, fast).square()
        wrapped.zero_grad(set_to_none=True)
        return norms

    return run


def clipped_by_opacus(network, *, clip_norm, fast=True):
    """Opacus' sum of gradients of which none is longer than `clip_norm`: (...) -> list.

    Without `fast` all gradients are kept and weighted; with it a second backward pass
    is of the weighted losses.
    """
    wrapped = _in_opacus(network, strict=False, fast=fast)

    def run(images, targets):
        losses = torch_losses(wrapped, images, targets)
        losses.sum().backward(retain_graph=fast)
        factors = (clip_norm / _norms_in(wrapped, fast)).clamp(max=1)
        parameters = list(wrapped.parameters())
        if fast:
            wrapped.zero_grad(set_to_none=True)
            wrapped.disable_hooks()
            (factors * losses).sum().backward()
            wrapped.enable_hooks()
            found = [p.grad for p in parameters]
        else:
            found = [torch.einsum("n,n...", factors, p.grad_sample) for p in parameters]
        wrapped.zero_grad(set_to_none=True)
        return found

    return run


def _in_opacus(network, *, strict, fast):
    """The network as Opacus has it; see `by_opacus`."""
    from opacus import grad_sample

    @grad_sample.register_grad_sampler(FrozenNorm)
    def sampler(layer, activations, cotangent):
        gradients = norm_gradients(layer, activations[0], cotangent)
        return dict(zip((layer.weight, layer.bias), gradients, strict=True))

    if fast:
        wrap = grad_sample.GradSampleModuleFastGradientClipping
    else:
        wrap = grad_sample.GradSampleModule
    return wrap(network.train(not strict), loss_reduction="sum", strict=strict)


def _norms_in(wrapped, fast):
    """Norms [N] of the gradients after a backward pass."""
    if fast:
        return wrapped.get_norm_sample()
    return squared_rows([p.grad_sample for p in wrapped.parameters()]).sqrt()


def by_backpack(network):
    """BackPACK's squared norms of individual gradients."""
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    extend(network)

    def run(images, targets):
        with backpack(BatchL2Grad()):
            torch_losses(network, images, targets).sum().backward()
        norms = sum(parameter.batch_l2 for parameter in network.parameters())
        for parameter in network.parameters():
            parameter.grad = None
            del parameter.batch_l2
        return norms

    return run
