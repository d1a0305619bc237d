"""Tensors plus text in one tamper-evident blob: the form of updates, checkpoints and model snapshots.

A sealed blob is a valid safetensors file whose last tensor, `~seal`, holds the BLAKE2b-256 digest of every byte
before it: header, padding and data alike, so that any altered or missing byte is noticed before anything is
parsed. Nothing is ever unpickled. This module must not know what the tensors mean.
"""
