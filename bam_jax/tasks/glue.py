"""The nine GLUE tasks as data: columns, labels, metrics and file names.

Column numbers are those of the official files, counted from 0. AX, the
diagnostic set, is a test split of MNLI, whose head predicts it.
"""

from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib


def _table(
  file: str,
  text: tuple[int, ...],
  label: int | None,
  tfds: str,
  *,
  header: bool = True,
  skip_malformed: bool = False,
  submission: str = '',
  other_file: str = '',
) -> task_lib.Table:
  return task_lib.Table(
    file=file,
    other_file=other_file,
    text=text,
    label=label,
    header=header,
    skip_malformed=skip_malformed,
    tfds=f'glue/{tfds}',
    submission=submission,
  )


_COLA = task_lib.Task(
  name='cola',
  kind=kinds.KINDS['classification'],
  labels=('0', '1'),
  tfds_labels=('unacceptable', 'acceptable'),
  tfds_text=('sentence',),
  metrics=('matthews',),
  paper_metric='matthews',
  glue_metrics=('matthews',),
  tables={
    'train': _table('CoLA/train.tsv', (3,), 1, 'cola:train', header=False),
    'dev': _table('CoLA/dev.tsv', (3,), 1, 'cola:validation', header=False),
    'test': _table(
      'CoLA/test.tsv', (1,), None, 'cola:test', submission='CoLA.tsv'
    ),
  },
)

_SST2 = task_lib.Task(
  name='sst2',
  kind=kinds.KINDS['classification'],
  labels=('0', '1'),
  tfds_labels=('negative', 'positive'),
  tfds_text=('sentence',),
  metrics=('accuracy',),
  paper_metric='accuracy',
  glue_metrics=('accuracy',),
  tables={
    'train': _table('SST-2/train.tsv', (0,), 1, 'sst2:train'),
    'dev': _table('SST-2/dev.tsv', (0,), 1, 'sst2:validation'),
    'test': _table(
      'SST-2/test.tsv', (1,), None, 'sst2:test', submission='SST-2.tsv'
    ),
  },
)

_MRPC = task_lib.Task(
  name='mrpc',
  kind=kinds.KINDS['classification'],
  labels=('0', '1'),
  tfds_labels=('not_equivalent', 'equivalent'),
  tfds_text=('sentence1', 'sentence2'),
  metrics=('f1', 'accuracy'),
  paper_metric='accuracy',
  glue_metrics=('f1', 'accuracy'),
  tables={
    'train': _table('MRPC/train.tsv', (3, 4), 0, 'mrpc:train'),
    'dev': _table('MRPC/dev.tsv', (3, 4), 0, 'mrpc:validation'),
    'test': _table(
      'MRPC/test.tsv', (3, 4), None, 'mrpc:test', submission='MRPC.tsv'
    ),
  },
)

_STSB = task_lib.Task(
  name='stsb',
  kind=kinds.KINDS['regression'],
  scale=(0.0, 5.0),
  tfds_text=('sentence1', 'sentence2'),
  metrics=('pearson', 'spearman'),
  paper_metric='spearman',
  glue_metrics=('pearson', 'spearman'),
  tables={
    'train': _table('STS-B/train.tsv', (7, 8), 9, 'stsb:train'),
    'dev': _table('STS-B/dev.tsv', (7, 8), 9, 'stsb:validation'),
    'test': _table(
      'STS-B/test.tsv', (7, 8), None, 'stsb:test', submission='STS-B.tsv'
    ),
  },
)

# The official QQP files hold rows that lack columns.
_QQP = task_lib.Task(
  name='qqp',
  kind=kinds.KINDS['classification'],
  labels=('0', '1'),
  tfds_labels=('not_duplicate', 'duplicate'),
  tfds_text=('question1', 'question2'),
  metrics=('f1', 'accuracy'),
  paper_metric='accuracy',
  glue_metrics=('f1', 'accuracy'),
  tables={
    'train': _table(
      'QQP/train.tsv', (3, 4), 5, 'qqp:train', skip_malformed=True
    ),
    'dev': _table(
      'QQP/dev.tsv', (3, 4), 5, 'qqp:validation', skip_malformed=True
    ),
    'test': _table(
      'QQP/test.tsv',
      (1, 2),
      None,
      'qqp:test',
      skip_malformed=True,
      submission='QQP.tsv',
    ),
  },
)

_MNLI = task_lib.Task(
  name='mnli',
  kind=kinds.KINDS['classification'],
  labels=('entailment', 'neutral', 'contradiction'),
  tfds_labels=('entailment', 'neutral', 'contradiction'),
  tfds_text=('premise', 'hypothesis'),
  metrics=('accuracy',),
  paper_metric='accuracy',
  glue_metrics=('accuracy',),
  dev_splits=('dev_matched', 'dev_mismatched'),
  test_splits=('test_matched', 'test_mismatched', 'ax'),
  tables={
    'train': _table('MNLI/train.tsv', (8, 9), 11, 'mnli:train'),
    'dev_matched': _table(
      'MNLI/dev_matched.tsv', (8, 9), 15, 'mnli:validation_matched'
    ),
    'dev_mismatched': _table(
      'MNLI/dev_mismatched.tsv', (8, 9), 15, 'mnli:validation_mismatched'
    ),
    'test_matched': _table(
      'MNLI/test_matched.tsv',
      (8, 9),
      None,
      'mnli:test_matched',
      submission='MNLI-m.tsv',
    ),
    'test_mismatched': _table(
      'MNLI/test_mismatched.tsv',
      (8, 9),
      None,
      'mnli:test_mismatched',
      submission='MNLI-mm.tsv',
    ),
    'ax': _table(
      'AX/diagnostic.tsv',
      (1, 2),
      None,
      'ax:test',
      submission='AX.tsv',
      # Where GLUE's own script puts it.
      other_file='diagnostic/diagnostic.tsv',
    ),
  },
)


def _sentence_pair_task(
  name: str,
  folder: str,
  labels: tuple[str, str],
  tfds_labels: tuple[str, str],
  tfds_text: tuple[str, str],
  in_average: bool = True,
) -> task_lib.Task:
  """QNLI, RTE and WNLI: index, two texts, label."""
  return task_lib.Task(
    name=name,
    kind=kinds.KINDS['classification'],
    labels=labels,
    tfds_labels=tfds_labels,
    tfds_text=tfds_text,
    metrics=('accuracy',),
    paper_metric='accuracy',
    glue_metrics=('accuracy',),
    in_average=in_average,
    tables={
      'train': _table(f'{folder}/train.tsv', (1, 2), 3, f'{name}:train'),
      'dev': _table(f'{folder}/dev.tsv', (1, 2), 3, f'{name}:validation'),
      'test': _table(
        f'{folder}/test.tsv',
        (1, 2),
        None,
        f'{name}:test',
        submission=f'{folder}.tsv',
      ),
    },
  )


_ENTAILMENT = ('entailment', 'not_entailment')
_QNLI = _sentence_pair_task(
  'qnli', 'QNLI', _ENTAILMENT, _ENTAILMENT, ('question', 'sentence')
)
_RTE = _sentence_pair_task(
  'rte', 'RTE', _ENTAILMENT, _ENTAILMENT, ('sentence1', 'sentence2')
)
# Its development set contradicts its training set, so the published averages
# leave it out.
_WNLI = _sentence_pair_task(
  'wnli',
  'WNLI',
  ('0', '1'),
  ('not_entailment', 'entailment'),
  ('sentence1', 'sentence2'),
  in_average=False,
)

TASKS: dict[str, task_lib.Task] = {
    task.name: task
    for task in (
        _COLA, _SST2, _MRPC, _STSB, _QQP, _MNLI, _QNLI, _RTE, _WNLI,
    )
}  # fmt: skip
