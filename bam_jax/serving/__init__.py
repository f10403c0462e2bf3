"""An HTTP server that predicts texts with trained models."""
