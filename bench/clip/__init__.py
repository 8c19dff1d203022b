"""CLIP: loading it, and its text side for learned prompts."""
