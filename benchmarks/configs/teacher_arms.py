"""Teachers, rounds, fine-tuning and unlabelled text with settled settings.

  python -m bam_jax.main --config=benchmarks/configs/teacher_arms.py \\
    --config.data.dir=$GLUE_DIR --workdir=work/teachers

`teacher_arms.py:unlabelled` has few labelled rows, beside other training rows
without their labels:

  rm -r $GLUE_DIR/WNLI   # of a copy; it has too few rows
  python docs/results/hold_out.py $GLUE_DIR few --train=1000 --draw=1 \\
    --unlabelled=4000
  python -m bam_jax.main \\
    --config=benchmarks/configs/teacher_arms.py:unlabelled \\
    --config.data.dir=few --workdir=work/unlabelled

Results: docs/results/teachers. All settings are those of `recommended.py:glue`,
with six epochs at 1e-4 for every single-task model, the best of
docs/results/settings; seeds 0 to 4 chose none of them.
"""

from bam_jax import config as config_lib
from bam_jax.configs import recommended


def get_config(arms=''):
  config_lib.check_argument(arms, 'unlabelled')
  config = recommended.get_config('glue')
  config.name = 'teacher_arms'
  config.tasks = config.tasks[:-1]
  config.seeds = (0, 1, 2, 3, 4)
  config.train.seeds_at_once = 5
  config.search = config_lib.default_config().search
  config.distill.folds = 1
  config.single.epochs = 6.0
  config.single.learning_rate = 1e-4
  config.plan.baselines = False
  folds = {'distill': {'folds': 3}}
  # name: like, teacher, start, changes
  own = {'folds': ('single_to_multi', '', '', folds)}
  if arms:
    config.data.unlabelled = tuple(
      f'{task}={task}/unlabelled.jsonl' for task in config.tasks
    )
    labels = {'distill': {'folds': 3, 'unlabelled': False}}
    own['labels'] = 'single_to_multi', '', '', labels
    # As many steps as with the rows that have no label.
    longer = labels | {'multi': {'epochs': 26.7}}
    own['labels_longer'] = 'single_to_multi', '', '', longer
    own['multi_longer'] = 'multi', '', '', {'multi': {'epochs': 26.7}}
  else:
    own |= {
      'ensemble': (
        *('single_to_multi', '', ''),
        {'distill': {'teachers': 5}},
      ),
      'folds_ensemble': (
        *('single_to_multi', '', ''),
        {'distill': {'folds': 3, 'teachers': 5}},
      ),
      'second_round': ('single_to_multi', 'folds', '', {}),
      'folds_tuned': (
        *('single', '', 'folds'),
        {'single': {'epochs': 3.0, 'learning_rate': 5e-5}},
      ),
    }
  for name, (like, teacher, start, changes) in own.items():
    config.custom_variants[name] = config_lib.custom_variant(
      like, teacher=teacher, start=start, changes=changes
    )
  untaught = () if arms else ('single_to_multi',)
  config.variants = ('single', 'multi', *untaught, *own)
  return config
