"""How v3-nano is made: corpora, teacher, distillation, adapters, packaging. Nothing here is needed to use a model."""
