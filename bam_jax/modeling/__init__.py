"""BERT in Flax with per-task heads over packed rows."""
