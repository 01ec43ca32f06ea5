"""Which formula counts the parameters of which torch module."""

from collections.abc import Callable
from typing import Any

from torch import nn

from funcnet.counts import layers, sequences
from funcnet.counts.count import Count

__all__ = ["formula_of", "includes_children"]


def formula_of(module: nn.Module) -> Count | None:
    """The count of a torch layer by its hyperparameters; None for a module that holds no parameters of a torch layer.

    A subclass has the formula of its torch class, which may not be all that it holds.

    >>> formula_of(nn.Conv2d(3, 16, 3)), formula_of(nn.ReLU())
    (448, None)
    """
    for kind in type(module).__mro__:
        if kind in _FORMULAS:
            return _FORMULAS[kind](module)
    return None


def includes_children(module: nn.Module) -> bool:
    """Whether the layer's formula covers its submodules: attention reads the weights of `out_proj` itself."""
    return isinstance(module, nn.MultiheadAttention)


def _linear(m: nn.Linear) -> Count:
    return layers.linear(m.in_features, m.out_features, m.bias is not None)


def _bilinear(m: nn.Bilinear) -> Count:
    return layers.bilinear(m.in1_features, m.in2_features, m.out_features, m.bias is not None)


def _convolution(count: Callable[..., Count]) -> Callable[[Any], Count]:
    return lambda m: count(m.in_channels, m.out_channels, m.kernel_size, groups=m.groups, bias=m.bias is not None)


def _batch_norm(m: Any) -> Count:  # also nn.SyncBatchNorm and InstanceNorm: torch has a private base for all
    return layers.batch_norm(m.num_features, affine=m.affine, bias=m.bias is not None)


def _group_norm(m: nn.GroupNorm) -> Count:
    return layers.group_norm(m.num_groups, m.num_channels, affine=m.affine, bias=m.bias is not None)


def _layer_norm(m: nn.LayerNorm) -> Count:
    affine = m.elementwise_affine
    return layers.layer_norm(m.normalized_shape, elementwise_affine=affine, bias=m.bias is not None)


def _rms_norm(m: nn.RMSNorm) -> Count:
    return layers.rms_norm(m.normalized_shape, elementwise_affine=m.elementwise_affine)


def _embedding(m: nn.Embedding | nn.EmbeddingBag) -> Count:
    return layers.embedding(m.num_embeddings, m.embedding_dim)


def _recurrent(count: Callable[..., Count]) -> Callable[[nn.RNNBase], Count]:
    def formula(m: nn.RNNBase) -> Count:
        projection = {"proj_size": m.proj_size} if m.proj_size else {}
        both = m.bidirectional
        return count(m.input_size, m.hidden_size, m.num_layers, bias=m.bias, bidirectional=both, **projection)

    return formula


def _rnn_base(m: nn.RNNBase) -> Count:
    return _recurrent({"LSTM": sequences.lstm, "GRU": sequences.gru}.get(m.mode, sequences.rnn))(m)


def _cell(count: Callable[..., Count]) -> Callable[[nn.RNNCellBase], Count]:
    return lambda m: count(m.input_size, m.hidden_size, m.bias)


def _multihead_attention(m: nn.MultiheadAttention) -> Count:
    kv = {"kdim": m.kdim, "vdim": m.vdim, "add_bias_kv": m.bias_k is not None}
    return sequences.multihead_attention(m.embed_dim, m.num_heads, bias=m.in_proj_bias is not None, **kv)


# Lazy layers are subclasses of the ordinary ones. What torch builds of these (nn.Transformer ...) is counted by its
# parts.
_FORMULAS: dict[type[nn.Module], Callable[[Any], Count]] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    nn.Conv1d: _convolution(layers.conv1d),
    nn.Conv2d: _convolution(layers.conv2d),
    nn.Conv3d: _convolution(layers.conv3d),
    nn.ConvTranspose1d: _convolution(layers.conv_transpose1d),
    nn.ConvTranspose2d: _convolution(layers.conv_transpose2d),
    nn.ConvTranspose3d: _convolution(layers.conv_transpose3d),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.InstanceNorm1d: _batch_norm,
    nn.InstanceNorm2d: _batch_norm,
    nn.InstanceNorm3d: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.PReLU: lambda m: layers.prelu(m.num_parameters),
    nn.RNNBase: _rnn_base,
    nn.RNNCell: _cell(sequences.rnn_cell),
    nn.GRUCell: _cell(sequences.gru_cell),
    nn.LSTMCell: _cell(sequences.lstm_cell),
    nn.MultiheadAttention: _multihead_attention,
}
