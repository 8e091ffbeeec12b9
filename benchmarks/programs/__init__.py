"""Whole programs as a user writes them, in fastrnn and in PyTorch; `suite.py` runs them."""
