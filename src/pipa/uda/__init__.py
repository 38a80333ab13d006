"""Adaptation methods: one training step each."""
