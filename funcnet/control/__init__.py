"""Control flow, recomputation and derivatives of your own, under every transform."""

from funcnet.control.associative import associative_scan as associative_scan
from funcnet.control.branches import cond as cond
from funcnet.control.custom import custom_jvp as custom_jvp
from funcnet.control.custom import custom_vjp as custom_vjp
from funcnet.control.loops import fori_loop as fori_loop
from funcnet.control.loops import while_loop as while_loop
from funcnet.control.remat import remat as remat
from funcnet.control.scan import scan as scan
