"""Copying trees between the local disk and containers, and comparing them, without a mount."""
