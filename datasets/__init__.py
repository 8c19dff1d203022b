"""Suites, tasks, splits and few-shot draws: files and names, never models."""
