"""A student with three narrow layers and a different vocabulary.

  python -m bam_jax.main --config=configs/small_student.py

This command trains the student from random weights on the few labelled rows of
`configs/deep_teacher.py`. The student and its teacher have different
vocabularies. The next command trains the student on more rows, with logits from
the teacher:

  python -m bam_jax.main --config=configs/small_student.py \\
      --workdir=work/small/taught --config.data.dir=work/small/more \\
      --config.variants="('single_to_multi',)" \\
      --config.distill.logits=work/small/logits

Results: docs/results/small_students.
"""

from bam_jax.configs import deep_teacher


def get_config():
  config = deep_teacher.get_config()
  config.name = 'small_student'
  config.model.init = ''
  config.model.layers = ()
  config.model.arch = 'l3-h128'
  config.model.vocab = 'work/small/vocab.txt'
  # With dropout and a learning rate of 1e-3, the student stayed at chance for
  # 600 steps.
  config.model.dropout_embedding = 0.0
  config.model.dropout_attention = 0.0
  config.model.dropout_hidden = 0.0
  config.packing.row_buckets = (16,)
  config.multi.max_steps = 1500
  config.multi.batch_size = 32
  config.multi.learning_rate = 3e-4
  config.multi.layer_decay = 1.0
  config.optimizer.bias_correction = True
  # Most rows have only the teacher's logits and no gold label.
  config.distill.annealing = 'constant'
  config.distill.constant = 0.0
  return config
