"""Prompt-tuning methods for CLIP, compared in one harness."""
