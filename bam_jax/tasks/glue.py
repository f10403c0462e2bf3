"""The nine GLUE tasks as data: columns, labels, metrics and file names.

Column numbers count the columns of the official files from 0. The diagnostic
set AX is declared as a test split of MNLI, because MNLI's head predicts it.
"""

from collections.abc import Mapping

from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib


def _table(
  file: str,
  tfds: str,
  text: tuple[int, ...],
  label: int | None = None,
  **more: object,
) -> task_lib.Table:
  return task_lib.Table(
    file=f'{file}.tsv', tfds=f'glue/{tfds}', text=text, label=label, **more
  )


def _tables(
  folder: str,
  text: tuple[int, ...],
  label: int,
  test_text: tuple[int, ...],
  *,
  header: bool = True,
  skip_malformed: bool = False,
) -> dict[str, task_lib.Table]:
  """Declares the train, dev and test files of a task.

  All test files have a header, and their text columns are `test_text`.
  """
  tfds = folder.lower().replace('-', '')
  skip = {'skip_malformed': skip_malformed}
  own = {'text': text, 'label': label, 'header': header, **skip}
  test = {'text': test_text, 'submission': f'{folder}.tsv', **skip}
  return {
    'train': _table(f'{folder}/train', f'{tfds}:train', **own),
    'dev': _table(f'{folder}/dev', f'{tfds}:validation', **own),
    'test': _table(f'{folder}/test', f'{tfds}:test', **test),
  }


def _task(
  name: str,
  tables: Mapping[str, task_lib.Table],
  *,
  metrics: tuple[str, ...] = ('accuracy',),
  **more: object,
) -> task_lib.Task:
  """Declares a task; the paper's average uses the task's last metric."""
  return task_lib.Task(
    name=name,
    kind=kinds.KINDS['classification' if 'labels' in more else 'regression'],
    metrics=metrics,
    paper_metric=metrics[-1],
    tables=tables,
    **more,
  )


def _mnli(split: str, tfds: str, *label: int, **more: str) -> task_lib.Table:
  return _table(f'MNLI/{split}', f'mnli:{tfds}', (8, 9), *label, **more)


_MNLI_TABLES = {
  'train': _mnli('train', 'train', 11),
  'dev_matched': _mnli('dev_matched', 'validation_matched', 15),
  'dev_mismatched': _mnli('dev_mismatched', 'validation_mismatched', 15),
  'test_matched': _mnli(
    'test_matched', 'test_matched', submission='MNLI-m.tsv'
  ),
  'test_mismatched': _mnli(
    'test_mismatched', 'test_mismatched', submission='MNLI-mm.tsv'
  ),
  'ax': _table(
    'AX/diagnostic', 'ax:test', (1, 2), submission='AX.tsv',
    # GLUE's own download script puts the file here.
    other_file='diagnostic/diagnostic.tsv',
  ),
}  # fmt: skip

_SENTENCES = ('sentence1', 'sentence2')
_NLI = ('entailment', 'neutral', 'contradiction')
_ENTAILMENT = ('entailment', 'not_entailment')
_TASKS = (
  _task(
    'cola', _tables('CoLA', (3,), 1, (1,), header=False),
    labels=('0', '1'), tfds_labels=('unacceptable', 'acceptable'),
    tfds_text=('sentence',), metrics=('matthews',),
  ),
  _task(
    'sst2', _tables('SST-2', (0,), 1, (1,)),
    labels=('0', '1'), tfds_labels=('negative', 'positive'),
    tfds_text=('sentence',),
  ),
  _task(
    'mrpc', _tables('MRPC', (3, 4), 0, (3, 4)),
    labels=('0', '1'), tfds_labels=('not_equivalent', 'equivalent'),
    tfds_text=_SENTENCES, metrics=('f1', 'accuracy'),
  ),
  _task(
    'stsb', _tables('STS-B', (7, 8), 9, (7, 8)), scale=(0.0, 5.0),
    tfds_text=_SENTENCES, metrics=('pearson', 'spearman'),
  ),
  _task(
    # Some rows of the official files lack columns.
    'qqp', _tables('QQP', (3, 4), 5, (1, 2), skip_malformed=True),
    labels=('0', '1'), tfds_labels=('not_duplicate', 'duplicate'),
    tfds_text=('question1', 'question2'), metrics=('f1', 'accuracy'),
  ),
  _task(
    'mnli', _MNLI_TABLES, labels=_NLI, tfds_labels=_NLI,
    tfds_text=('premise', 'hypothesis'),
    dev_splits=('dev_matched', 'dev_mismatched'),
    test_splits=('test_matched', 'test_mismatched', 'ax'),
  ),
  _task(
    'qnli', _tables('QNLI', (1, 2), 3, (1, 2)), labels=_ENTAILMENT,
    tfds_labels=_ENTAILMENT, tfds_text=('question', 'sentence'),
  ),
  _task(
    'rte', _tables('RTE', (1, 2), 3, (1, 2)), labels=_ENTAILMENT,
    tfds_labels=_ENTAILMENT, tfds_text=_SENTENCES,
  ),
  _task(
    'wnli', _tables('WNLI', (1, 2), 3, (1, 2)),
    labels=('0', '1'), tfds_labels=('not_entailment', 'entailment'),
    tfds_text=_SENTENCES,
    # The published averages leave out WNLI, because its dev set contradicts
    # its training set.
    in_average=False,
  ),
)  # fmt: skip
TASKS: dict[str, task_lib.Task] = {task.name: task for task in _TASKS}
