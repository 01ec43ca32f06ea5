"""Control flow, recomputation and derivatives of your own, under every transform."""
