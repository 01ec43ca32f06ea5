"""The composition matrix: layers by transforms, each cell a comparison with a slow reference."""
