"""The table of classes, against scikit-learn on each seed."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from bam_jax import config as config_lib
from bam_jax.reporting import classes
from bam_jax.reporting import curves
from bam_jax.reporting import tables
from bam_jax.tasks import task as task_lib
from tests.reporting import plans

_LABELS = ('low', 'high', 'never')
_TASK = plans.make_task('word', labels=_LABELS)
_TASKS = task_lib.TaskTable((_TASK, plans.make_task('score', 'spearman')))


def test_medians_over_seeds_are_those_of_scikit_learn(tmp_path):
  rng = np.random.default_rng(0)
  gold = rng.integers(0, 2, 30)
  runs, expected = [plans.make_run('single', 0, 'score', {})], []
  for seed in range(3):
    logits = rng.normal(size=(30, 3)).astype(np.float32)
    logits[:, 2] = -9
    path = tmp_path / f'{seed}.npz'
    names = {'uid': np.arange(30), 'logits': logits, 'label': gold}
    np.savez(path, **{f'word/dev/{key}': of for key, of in names.items()})
    runs.append(plans.make_run('single', seed, 'word', {}, outputs=path))
    expected.append(
      oracle.precision_recall_fscore_support(
        gold, logits.argmax(-1), labels=range(3), zero_division=np.nan
      )
    )
  runs.append(plans.make_run('multi', 0, 'word', {}))  # Without outputs.
  found = classes.summarise(runs, _TASKS)
  assert list(found) == ['word'] and list(found['word']) == ['single']
  expected = np.median(expected, axis=0)
  for i, label in enumerate(_LABELS):
    own = found['word']['single'][label]
    assert own.pop('rows') == expected[3, i]
    assert list(own.values()) == pytest.approx(
      (100 * expected[:3, i]).tolist(), nan_ok=True
    )
  found = classes.summarise(runs, _TASKS)
  summary = {'classes': found, 'variants': {'single': {}, 'multi': {}}}
  report = tables.Report(
    summary, config_lib.Config(), _TASKS, curves.Curves([])
  )
  (table,) = tables.class_table(report)
  assert table.rows[-1] == ['word', 'never', 'f1', '0', 'undefined', '—']
