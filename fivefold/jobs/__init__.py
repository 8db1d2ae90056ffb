"""Corpora that outgrow one process: the batch job, and the stores it fills."""
