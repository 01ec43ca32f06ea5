"""Parameter counts of recurrent layers, attention and transformers; see `funcnet.counts.layers` for the conventions."""

from funcnet.counts.count import Count, dividing, sizes
from funcnet.counts.layers import layer_norm, linear

__all__ = [
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "multihead_attention",
    "rnn",
    "rnn_cell",
    "transformer",
    "transformer_decoder",
    "transformer_decoder_layer",
    "transformer_encoder",
    "transformer_encoder_layer",
]


def rnn_cell(input_size: int, hidden_size: int, bias: bool = True) -> Count:
    """`nn.RNNCell`: hidden * (input + hidden + 2); torch keeps two biases, for cuDNN.

    >>> rnn_cell(10, 20).formula
    '20*(10 + 20 + 2)'
    """
    return _recurrent(1, input_size, hidden_size, 1, bias, False)


def gru_cell(input_size: int, hidden_size: int, bias: bool = True) -> Count:
    """`nn.GRUCell`: 3 gates, 3 * hidden * (input + hidden + 2)."""
    return _recurrent(3, input_size, hidden_size, 1, bias, False)


def lstm_cell(input_size: int, hidden_size: int, bias: bool = True) -> Count:
    """`nn.LSTMCell`: 4 gates, 4 * hidden * (input + hidden + 2)."""
    return _recurrent(4, input_size, hidden_size, 1, bias, False)


def rnn(
    input_size: int, hidden_size: int, num_layers: int = 1, *, bias: bool = True, bidirectional: bool = False
) -> Count:
    """`nn.RNN`: a cell a layer and direction; later layers read the outputs of both directions.

    >>> rnn(10, 20, 3, bidirectional=True).formula
    '2*20*(10 + 20 + 2) + 2*2*20*(2*20 + 20 + 2)'
    """
    return _recurrent(1, input_size, hidden_size, num_layers, bias, bidirectional)


def gru(
    input_size: int, hidden_size: int, num_layers: int = 1, *, bias: bool = True, bidirectional: bool = False
) -> Count:
    """`nn.GRU`: as `rnn`, with 3 gates.

    >>> gru(10, 20)
    1920
    """
    return _recurrent(3, input_size, hidden_size, num_layers, bias, bidirectional)


def lstm(
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    *,
    bias: bool = True,
    bidirectional: bool = False,
    proj_size: int = 0,
) -> Count:
    """`nn.LSTM`: as `rnn`, with 4 gates; a projection (Sak et al. 2014) adds hidden * proj, and is what is fed back.

    >>> lstm(10, 20, proj_size=5).formula
    '4*20*(10 + 5 + 2) + 20*5'
    """
    return _recurrent(4, input_size, hidden_size, num_layers, bias, bidirectional, proj_size)


def multihead_attention(
    embed_dim: int,
    num_heads: int,
    *,
    bias: bool = True,
    add_bias_kv: bool = False,
    kdim: int | None = None,
    vdim: int | None = None,
) -> Count:
    """`nn.MultiheadAttention`: E * (E + kdim + vdim + 3) into the heads, (E + 1) * E out of them, however many heads.

    >>> multihead_attention(64, 4).formula
    '64*(64 + 64 + 64 + 3) + (64 + 1)*64'
    """
    dim, heads, keys, values = sizes(
        embed_dim=embed_dim,
        num_heads=num_heads,
        kdim=embed_dim if kdim is None else kdim,
        vdim=embed_dim if vdim is None else vdim,
    )
    dividing("num_heads", heads, embed_dim=dim)
    count = dim * (dim + keys + values + 3 * bias) + linear(dim, dim, bias)
    return count + Count(2) * dim if add_bias_kv else count


def transformer_encoder_layer(d_model: int, nhead: int, dim_feedforward: int = 2048, *, bias: bool = True) -> Count:
    """`nn.TransformerEncoderLayer` (Vaswani et al. 2017): attention, two linear layers, two norms.

    >>> transformer_encoder_layer(512, 8)
    3152384
    """
    return _transformer_layer(d_model, nhead, dim_feedforward, bias, attentions=1)


def transformer_decoder_layer(d_model: int, nhead: int, dim_feedforward: int = 2048, *, bias: bool = True) -> Count:
    """`nn.TransformerDecoderLayer`: two attentions, two linear layers, three norms."""
    return _transformer_layer(d_model, nhead, dim_feedforward, bias, attentions=2)


def transformer_encoder(encoder_layer: int, num_layers: int, norm: int = 0) -> Count:
    """`nn.TransformerEncoder`: from the counts of its layer and of its norm, as torch takes the modules.

    >>> transformer_encoder(transformer_encoder_layer(512, 8), num_layers=6, norm=layer_norm(512))
    18915328
    """
    layer, number, last = sizes(encoder_layer=encoder_layer, num_layers=num_layers, norm=norm)
    return number * layer + last


def transformer_decoder(decoder_layer: int, num_layers: int, norm: int = 0) -> Count:
    """`nn.TransformerDecoder`: from the counts of its layer and of its norm."""
    layer, number, last = sizes(decoder_layer=decoder_layer, num_layers=num_layers, norm=norm)
    return number * layer + last


def transformer(
    d_model: int = 512,
    nhead: int = 8,
    num_encoder_layers: int = 6,
    num_decoder_layers: int = 6,
    dim_feedforward: int = 2048,
    *,
    bias: bool = True,
) -> Count:
    """`nn.Transformer`: an encoder and a decoder, each with a norm at its end.

    >>> transformer()
    44140544
    """
    norm = layer_norm(d_model, bias=bias)
    encoder = transformer_encoder_layer(d_model, nhead, dim_feedforward, bias=bias)
    decoder = transformer_decoder_layer(d_model, nhead, dim_feedforward, bias=bias)
    return transformer_encoder(encoder, num_encoder_layers, norm) + transformer_decoder(
        decoder, num_decoder_layers, norm
    )


def _recurrent(
    gates: int,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    proj_size: int = 0,
) -> Count:
    features, hidden, layers, projected = sizes(
        input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, proj_size=proj_size
    )
    directions = Count(1 + bidirectional)
    fed_back = projected if projected else hidden

    def layer(features: Count) -> Count:
        return directions * (Count(gates) * hidden * (features + fed_back + 2 * bias) + hidden * projected)

    return layer(features) + Count(layers - 1) * layer(directions * fed_back) if layers > 1 else layer(features)


def _transformer_layer(d_model: int, nhead: int, dim_feedforward: int, bias: bool, attentions: int) -> Count:
    attention = multihead_attention(d_model, nhead, bias=bias)
    feedforward = linear(d_model, dim_feedforward, bias) + linear(dim_feedforward, d_model, bias)
    return Count(attentions) * attention + feedforward + Count(attentions + 1) * layer_norm(d_model, bias=bias)
