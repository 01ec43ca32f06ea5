"""Control flow, recomputation and derivatives of your own, under every transform."""

from funcnet.control.custom import custom_jvp as custom_jvp
from funcnet.control.custom import custom_vjp as custom_vjp
from funcnet.control.remat import remat as remat
