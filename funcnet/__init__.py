"""funcnet: purely functional PyTorch."""
