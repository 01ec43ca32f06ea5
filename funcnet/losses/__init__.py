"""Losses, one for each example: the caller takes the mean.

Optax's under its names and with its arguments, and those of `torch.nn` that it lacks. All are pure functions under
grad, vmap, jvp and jit; wrong shapes are errors, nothing is broadcast.

The rooms: `regression`, `binary`, `classification` (cross entropies), `margins`, `divergences`, `embeddings`,
`ranking`, `sequences` (CTC) and `segmentation` (Dice); `arguments` checks what they take, `simplex` is sparsemax.
"""

from .binary import binary_cross_entropy as binary_cross_entropy
from .binary import hinge_loss as hinge_loss
from .binary import perceptron_loss as perceptron_loss
from .binary import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
from .binary import sigmoid_focal_loss as sigmoid_focal_loss
from .binary import soft_margin_loss as soft_margin_loss
from .binary import sparsemax_loss as sparsemax_loss
from .classification import cross_entropy as cross_entropy
from .classification import distillation_loss as distillation_loss
from .classification import nll_loss as nll_loss
from .classification import poly_loss_cross_entropy as poly_loss_cross_entropy
from .classification import safe_softmax_cross_entropy as safe_softmax_cross_entropy
from .classification import smooth_labels as smooth_labels
from .classification import softmax_cross_entropy as softmax_cross_entropy
from .classification import softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels
from .divergences import convex_kl_divergence as convex_kl_divergence
from .divergences import generalized_kl_divergence as generalized_kl_divergence
from .divergences import kl_divergence as kl_divergence
from .divergences import kl_divergence_with_log_targets as kl_divergence_with_log_targets
from .divergences import make_fenchel_young_loss as make_fenchel_young_loss
from .embeddings import cosine_embedding_loss as cosine_embedding_loss
from .embeddings import hinge_embedding_loss as hinge_embedding_loss
from .embeddings import ntxent as ntxent
from .embeddings import triplet_margin_loss as triplet_margin_loss
from .embeddings import triplet_margin_with_distance_loss as triplet_margin_with_distance_loss
from .margins import multi_margin_loss as multi_margin_loss
from .margins import multiclass_hinge_loss as multiclass_hinge_loss
from .margins import multiclass_perceptron_loss as multiclass_perceptron_loss
from .margins import multiclass_sparsemax_loss as multiclass_sparsemax_loss
from .margins import multilabel_margin_loss as multilabel_margin_loss
from .margins import multilabel_soft_margin_loss as multilabel_soft_margin_loss
from .ranking import margin_ranking_loss as margin_ranking_loss
from .ranking import ranking_softmax_loss as ranking_softmax_loss
from .regression import cosine_distance as cosine_distance
from .regression import cosine_similarity as cosine_similarity
from .regression import gaussian_nll_loss as gaussian_nll_loss
from .regression import huber_loss as huber_loss
from .regression import l1_loss as l1_loss
from .regression import l2_loss as l2_loss
from .regression import log_cosh as log_cosh
from .regression import poisson_nll_loss as poisson_nll_loss
from .regression import smooth_l1_loss as smooth_l1_loss
from .regression import squared_error as squared_error
from .segmentation import binary_dice_loss as binary_dice_loss
from .segmentation import dice_loss as dice_loss
from .segmentation import multiclass_generalized_dice_loss as multiclass_generalized_dice_loss
from .sequences import ctc_loss as ctc_loss
from .sequences import ctc_loss_with_forward_probs as ctc_loss_with_forward_probs
