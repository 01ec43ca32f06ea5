"""What a model holds and costs: parameter counts with their formulas, FLOPs, memory for the backward.

>>> from funcnet import counts
>>> counts.conv2d(3, 16, 3), counts.linear(256, 10)
(448, 2570)
"""

from funcnet.counts.count import Count as Count
from funcnet.counts.layers import adaptive_log_softmax_with_loss as adaptive_log_softmax_with_loss
from funcnet.counts.layers import batch_norm as batch_norm
from funcnet.counts.layers import bilinear as bilinear
from funcnet.counts.layers import conv1d as conv1d
from funcnet.counts.layers import conv2d as conv2d
from funcnet.counts.layers import conv3d as conv3d
from funcnet.counts.layers import conv_transpose1d as conv_transpose1d
from funcnet.counts.layers import conv_transpose2d as conv_transpose2d
from funcnet.counts.layers import conv_transpose3d as conv_transpose3d
from funcnet.counts.layers import embedding as embedding
from funcnet.counts.layers import embedding_bag as embedding_bag
from funcnet.counts.layers import group_norm as group_norm
from funcnet.counts.layers import instance_norm as instance_norm
from funcnet.counts.layers import layer_norm as layer_norm
from funcnet.counts.layers import linear as linear
from funcnet.counts.layers import linear_cross_entropy_loss as linear_cross_entropy_loss
from funcnet.counts.layers import prelu as prelu
from funcnet.counts.layers import rms_norm as rms_norm
from funcnet.counts.rows import Cost as Cost
from funcnet.counts.rows import Row as Row
from funcnet.counts.sequences import gru as gru
from funcnet.counts.sequences import gru_cell as gru_cell
from funcnet.counts.sequences import lstm as lstm
from funcnet.counts.sequences import lstm_cell as lstm_cell
from funcnet.counts.sequences import multihead_attention as multihead_attention
from funcnet.counts.sequences import rnn as rnn
from funcnet.counts.sequences import rnn_cell as rnn_cell
from funcnet.counts.sequences import transformer as transformer
from funcnet.counts.sequences import transformer_decoder as transformer_decoder
from funcnet.counts.sequences import transformer_decoder_layer as transformer_decoder_layer
from funcnet.counts.sequences import transformer_encoder as transformer_encoder
from funcnet.counts.sequences import transformer_encoder_layer as transformer_encoder_layer
from funcnet.counts.summary import Summary as Summary
from funcnet.counts.summary import parameters as parameters
from funcnet.counts.summary import summary as summary

__all__ = [
    "Cost",
    "Count",
    "Row",
    "Summary",
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
    "gru",
    "gru_cell",
    "instance_norm",
    "layer_norm",
    "linear",
    "linear_cross_entropy_loss",
    "lstm",
    "lstm_cell",
    "multihead_attention",
    "parameters",
    "prelu",
    "rms_norm",
    "rnn",
    "rnn_cell",
    "summary",
    "transformer",
    "transformer_decoder",
    "transformer_decoder_layer",
    "transformer_encoder",
    "transformer_encoder_layer",
]
