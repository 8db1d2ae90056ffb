"""How good a model is: sets, metrics, the board, plots, and MTEB. Nothing here is needed to use a model."""
