"""Experiments on a public corpus of Chinese reviews: how good the network is, and what non-IID data does."""
