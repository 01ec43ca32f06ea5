"""Parameter counts of dense, convolutional, normalization and embedding layers.

Each function has the name of what it counts and torch's argument names; arguments that do not change the count are left
out, and those after one that was left out go by keyword. Lazy layers become the ordinary ones, so the same functions
count them.
"""

from collections.abc import Sequence

from funcnet.counts.count import Count, dividing, product, sizes

__all__ = [
    "adaptive_log_softmax_with_loss",
    "batch_norm",
    "bilinear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "embedding",
    "embedding_bag",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "linear",
    "linear_cross_entropy_loss",
    "prelu",
    "rms_norm",
]


def linear(in_features: int, out_features: int, bias: bool = True) -> Count:
    """`nn.Linear`: (in + 1) * out.

    >>> linear(256, 10)
    2570
    >>> linear(256, 10).formula
    '(256 + 1)*10'
    """
    n_in, n_out = sizes(in_features=in_features, out_features=out_features)
    return (n_in + bias) * n_out


def bilinear(in1_features: int, in2_features: int, out_features: int, bias: bool = True) -> Count:
    """`nn.Bilinear`: (in1 * in2 + 1) * out.

    >>> bilinear(3, 4, 5)
    65
    """
    n_in1, n_in2, n_out = sizes(in1_features=in1_features, in2_features=in2_features, out_features=out_features)
    return (n_in1 * n_in2 + bias) * n_out


def conv1d(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int], *, groups: int = 1, bias: bool = True
) -> Count:
    """`nn.Conv1d`: (in / groups * k + 1) * out."""
    return _convolution(1, in_channels, out_channels, kernel_size, groups, bias)


def conv2d(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], *, groups: int = 1, bias: bool = True
) -> Count:
    """`nn.Conv2d`: (in / groups * kh * kw + 1) * out.

    >>> conv2d(3, 16, 3)
    448
    >>> conv2d(32, 64, (3, 5), groups=4, bias=False).formula
    '32/4*3*5*64'
    """
    return _convolution(2, in_channels, out_channels, kernel_size, groups, bias)


def conv3d(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int, int, int], *, groups: int = 1, bias: bool = True
) -> Count:
    """`nn.Conv3d`: (in / groups * kd * kh * kw + 1) * out."""
    return _convolution(3, in_channels, out_channels, kernel_size, groups, bias)


def conv_transpose1d(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int], *, groups: int = 1, bias: bool = True
) -> Count:
    """`nn.ConvTranspose1d`: (in / groups * k + 1) * out, as for `conv1d`."""
    return _convolution(1, in_channels, out_channels, kernel_size, groups, bias)


def conv_transpose2d(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], *, groups: int = 1, bias: bool = True
) -> Count:
    """`nn.ConvTranspose2d`: (in / groups * kh * kw + 1) * out, as for `conv2d`."""
    return _convolution(2, in_channels, out_channels, kernel_size, groups, bias)


def conv_transpose3d(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int, int, int], *, groups: int = 1, bias: bool = True
) -> Count:
    """`nn.ConvTranspose3d`: (in / groups * kd * kh * kw + 1) * out, as for `conv3d`."""
    return _convolution(3, in_channels, out_channels, kernel_size, groups, bias)


def batch_norm(num_features: int, *, affine: bool = True, bias: bool = True) -> Count:
    """`nn.BatchNorm1d`, `2d`, `3d` and `nn.SyncBatchNorm`: 2 * features; their running statistics are buffers.

    >>> batch_norm(64).formula
    '2*64'
    """
    (features,) = sizes(num_features=num_features)
    return _scale_and_shift(features, affine, bias)


def instance_norm(num_features: int, *, affine: bool = False, bias: bool = True) -> Count:
    """`nn.InstanceNorm1d`, `2d`, `3d`: nothing by default, 2 * features with `affine`."""
    (features,) = sizes(num_features=num_features)
    return _scale_and_shift(features, affine, bias)


def group_norm(num_groups: int, num_channels: int, *, affine: bool = True, bias: bool = True) -> Count:
    """`nn.GroupNorm`: 2 * channels, however many groups they form."""
    groups, channels = sizes(num_groups=num_groups, num_channels=num_channels)
    dividing("num_groups", groups, num_channels=channels)
    return _scale_and_shift(channels, affine, bias)


def layer_norm(normalized_shape: int | Sequence[int], *, elementwise_affine: bool = True, bias: bool = True) -> Count:
    """`nn.LayerNorm`: 2 * the sizes of the normalized axes.

    >>> layer_norm((4, 8)).formula
    '2*4*8'
    """
    return _scale_and_shift(_elements(normalized_shape), elementwise_affine, bias)


def rms_norm(normalized_shape: int | Sequence[int], *, elementwise_affine: bool = True) -> Count:
    """`nn.RMSNorm`: the sizes of the normalized axes; it only scales."""
    return _scale_and_shift(_elements(normalized_shape), elementwise_affine, bias=False)


def embedding(num_embeddings: int, embedding_dim: int) -> Count:
    """`nn.Embedding`: embeddings * their size.

    >>> embedding(1000, 64)
    64000
    """
    number, dim = sizes(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
    return number * dim


def embedding_bag(num_embeddings: int, embedding_dim: int) -> Count:
    """`nn.EmbeddingBag`: embeddings * their size."""
    return embedding(num_embeddings, embedding_dim)


def prelu(num_parameters: int = 1) -> Count:
    """`nn.PReLU`: one slope for all channels, or one a channel."""
    return sizes(num_parameters=num_parameters)[0]


def adaptive_log_softmax_with_loss(
    in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0, head_bias: bool = False
) -> Count:
    """`nn.AdaptiveLogSoftmaxWithLoss` (Grave et al. 2017): in * (c0 + k) + sum of h_i * (in + c_i - c_(i-1)).

    With k clusters after the first cutoff c0, each behind a projection to h_i = floor(in / div_value^i) features.

    >>> adaptive_log_softmax_with_loss(64, 1000, [100, 500]).formula
    '64*(100 + 2) + 16*(64 + 400) + 4*(64 + 500)'
    """
    n_in, _ = sizes(in_features=in_features, n_classes=n_classes)
    ends = [*sizes(**{f"cutoffs[{i}]": cutoff for i, cutoff in enumerate(cutoffs)}), n_classes]
    if len(ends) == 1 or ends[0] == 0 or sorted(set(ends)) != ends:
        raise ValueError(
            f"cutoffs are {list(cutoffs)}; they must rise from 1 or more to less than {n_classes} classes."
        )
    count = (n_in + head_bias) * (Count(ends[0]) + (len(ends) - 1))
    for i in range(1, len(ends)):
        count = count + Count(int(in_features // div_value**i)) * (n_in + (int(ends[i]) - int(ends[i - 1])))
    return count


def linear_cross_entropy_loss(
    in_features: int, num_classes: int, *, out_features: Sequence[int] = (), bias: bool = False
) -> Count:
    """`nn.LinearCrossEntropyLoss`: a linear layer to as many outputs as there are classes and positions."""
    return linear(in_features, product((num_classes, *out_features)), bias)


def _convolution(
    dims: int, in_channels: int, out_channels: int, kernel_size: int | tuple[int, ...], groups: int, bias: bool
) -> Count:
    n_in, n_out, groups = sizes(in_channels=in_channels, out_channels=out_channels, groups=groups)
    kernel = kernel_size if isinstance(kernel_size, Sequence) else (kernel_size,) * dims
    if len(kernel) != dims:
        raise ValueError(f"kernel_size is {kernel_size}; this layer has {dims} of them: write {dims} numbers or one.")
    dividing("groups", groups, in_channels=n_in, out_channels=n_out)
    widths = sizes(**{f"kernel_size[{i}]": width for i, width in enumerate(kernel)})
    return (product((n_in // groups, *widths)) + bias) * n_out


def _scale_and_shift(features: Count, affine: bool, bias: bool) -> Count:
    return Count(affine * (1 + bias)) * features


def _elements(normalized_shape: int | Sequence[int]) -> Count:
    shape = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
    return product(tuple(sizes(**{f"normalized_shape[{i}]": size for i, size in enumerate(shape)})))
