"""Methods that are trained on rows or bend the space: similarity distillation, and maps that are not affine."""
