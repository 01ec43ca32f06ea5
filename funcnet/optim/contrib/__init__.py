"""Transformations and optimizers of `optax.contrib`, and further ones: younger than those of `funcnet.optim`."""
