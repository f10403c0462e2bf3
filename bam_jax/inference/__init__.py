"""Predicts texts with trained models, exports them, writes submissions."""
