"""The declarations against the published description of the GLUE files."""

import pytest

from bam_jax.inference import export
from bam_jax.tasks import glue
from bam_jax.tasks import metrics

_BINARY = ('0', '1')
_ENTAILMENT = ('entailment', 'not_entailment')
_NLI = ('entailment', 'neutral', 'contradiction')
# Texts and label of train and dev, texts of test, labels, metrics, submission.
_OFFICIAL = {
  'cola': ((3,), 1, 1, (1,), _BINARY, ('matthews',), 'CoLA.tsv'),
  'sst2': ((0,), 1, 1, (1,), _BINARY, ('accuracy',), 'SST-2.tsv'),
  'mrpc': ((3, 4), 0, 0, (3, 4), _BINARY, ('f1', 'accuracy'), 'MRPC.tsv'),
  'stsb': ((7, 8), 9, 9, (7, 8), (), ('pearson', 'spearman'), 'STS-B.tsv'),
  'qqp': ((3, 4), 5, 5, (1, 2), _BINARY, ('f1', 'accuracy'), 'QQP.tsv'),
  'mnli': ((8, 9), 11, 15, (8, 9), _NLI, ('accuracy',), 'MNLI-m.tsv'),
  'qnli': ((1, 2), 3, 3, (1, 2), _ENTAILMENT, ('accuracy',), 'QNLI.tsv'),
  'rte': ((1, 2), 3, 3, (1, 2), _ENTAILMENT, ('accuracy',), 'RTE.tsv'),
  'wnli': ((1, 2), 3, 3, (1, 2), _BINARY, ('accuracy',), 'WNLI.tsv'),
}
_TFDS = {
  'cola': (('sentence',), ('unacceptable', 'acceptable')),
  'sst2': (('sentence',), ('negative', 'positive')),
  'mrpc': (('sentence1', 'sentence2'), ('not_equivalent', 'equivalent')),
  'stsb': (('sentence1', 'sentence2'), ()),
  'qqp': (('question1', 'question2'), ('not_duplicate', 'duplicate')),
  'mnli': (('premise', 'hypothesis'), _NLI),
  'qnli': (('question', 'sentence'), _ENTAILMENT),
  'rte': (('sentence1', 'sentence2'), _ENTAILMENT),
  'wnli': (('sentence1', 'sentence2'), ('not_entailment', 'entailment')),
}


def test_the_nine_tasks_in_order():
  assert tuple(glue.TASKS) == tuple(_OFFICIAL)
  assert all(name == task.name for name, task in glue.TASKS.items())


@pytest.mark.parametrize('name', _OFFICIAL)
def test_columns_labels_and_metrics(name):
  text, train_label, dev_label, test_text, labels, names, file = _OFFICIAL[name]
  task = glue.TASKS[name]
  train, test = task.tables['train'], task.tables[task.test_splits[0]]
  assert (train.text, train.label) == (text, train_label)
  for split in task.dev_splits:
    assert (task.tables[split].text, task.tables[split].label) == (
      text,
      dev_label,
    )
  assert (test.text, test.label, test.submission) == (test_text, None, file)
  assert task.labels == labels
  assert task.kind.has_scale == (name == 'stsb')
  assert task.metrics == names
  assert set(task.metrics) <= set(metrics.METRICS)
  assert task.is_pair == (name not in ('cola', 'sst2'))


@pytest.mark.parametrize('name', _TFDS)
def test_tfds_names(name):
  task = glue.TASKS[name]
  assert (task.tfds_text, task.tfds_labels) == _TFDS[name]
  if name != 'mnli':
    assert {split: table.tfds for split, table in task.tables.items()} == {
      'train': f'glue/{name}:train',
      'dev': f'glue/{name}:validation',
      'test': f'glue/{name}:test',
    }


@pytest.mark.parametrize('name', _TFDS)
def test_exports_name_labels_by_what_they_mean(name):
  """Files, fingerprints and submissions keep the official ones."""
  task, names = glue.TASKS[name], list(_TFDS[name][1])
  assert task.definition()['labels'] == list(_OFFICIAL[name][4])
  assert export.define_outputs([task])[name]['labels'] == names
  if names:
    found = task.kind.export_settings(task)['id2label']
    assert found == {str(i): label for i, label in enumerate(names)}
    assert task.kind.meaning(task) == f'logits of `{"`, `".join(names)}`'


def test_mnli_has_two_dev_splits_and_the_diagnostic_set():
  tables = glue.TASKS['mnli'].tables
  assert glue.TASKS['mnli'].dev_splits == ('dev_matched', 'dev_mismatched')
  assert glue.TASKS['mnli'].test_splits == (
    'test_matched',
    'test_mismatched',
    'ax',
  )
  places = {
    split: (table.file, table.tfds, table.submission)
    for split, table in tables.items()
  }
  assert places == {
    'train': ('MNLI/train.tsv', 'glue/mnli:train', ''),
    'dev_matched': (
      'MNLI/dev_matched.tsv', 'glue/mnli:validation_matched', '',
    ),
    'dev_mismatched': (
      'MNLI/dev_mismatched.tsv', 'glue/mnli:validation_mismatched', '',
    ),
    'test_matched': (
      'MNLI/test_matched.tsv', 'glue/mnli:test_matched', 'MNLI-m.tsv',
    ),
    'test_mismatched': (
      'MNLI/test_mismatched.tsv', 'glue/mnli:test_mismatched', 'MNLI-mm.tsv',
    ),
    'ax': ('AX/diagnostic.tsv', 'glue/ax:test', 'AX.tsv'),
  }  # fmt: skip
  assert (tables['ax'].text, tables['ax'].label) == ((1, 2), None)
  assert tables['test_mismatched'].text == (8, 9)
  assert tables['test_mismatched'].label is None


def test_only_colas_labelled_files_lack_a_header():
  headless = {
    table.file
    for task in glue.TASKS.values()
    for table in task.tables.values()
    if not table.header
  }
  assert headless == {'CoLA/train.tsv', 'CoLA/dev.tsv'}


def test_files_lie_in_the_official_folders():
  folders = {
    name: {table.file.split('/')[0] for table in task.tables.values()}
    for name, task in glue.TASKS.items()
  }
  assert folders == {
    'cola': {'CoLA'},
    'sst2': {'SST-2'},
    'mrpc': {'MRPC'},
    'stsb': {'STS-B'},
    'qqp': {'QQP'},
    'mnli': {'MNLI', 'AX'},
    'qnli': {'QNLI'},
    'rte': {'RTE'},
    'wnli': {'WNLI'},
  }
  for task in glue.TASKS.values():
    for split, table in task.tables.items():
      if split != 'ax':
        assert table.file.endswith(f'/{split}.tsv')


def test_which_metric_and_which_task_enters_the_papers_average():
  paper = {name: task.paper_metric for name, task in glue.TASKS.items()}
  assert paper.pop('cola') == 'matthews'
  assert paper.pop('stsb') == 'spearman'
  assert set(paper.values()) == {'accuracy'}
  left_out = [n for n, task in glue.TASKS.items() if not task.in_average]
  assert left_out == ['wnli']


def test_stsb_scores_run_from_0_to_5():
  assert glue.TASKS['stsb'].scale == (0.0, 5.0)


def test_only_qqp_may_hold_malformed_rows():
  for name, task in glue.TASKS.items():
    for table in task.tables.values():
      assert table.skip_malformed == (name == 'qqp')
