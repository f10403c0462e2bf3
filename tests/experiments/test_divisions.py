"""Plans of tasks whose labels and dev rows come from one file."""

import json

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import sources
from bam_jax.experiments import identity
from bam_jax.experiments import plan as plan_lib
from tests.configs import tiny

_TEXTS = ('the film was good', 'a day in the town', 'what a bad meal')


@pytest.fixture
def make(tmp_path):
  """Makes the plan of the same task, with another file each time."""

  def plan(rows, **values) -> plan_lib.Plan:
    lines = ['text,mood', *(f'{text} {i},{mood}' for i, (text, mood) in rows)]
    (tmp_path / 'a.csv').write_text('\n'.join(lines) + '\n')
    config = tiny.get_config()
    config.custom_tasks.own = config_lib.custom_task(**{
      'format': 'csv',
      'train': str(tmp_path / 'a.csv'),
      'dev_share': 0.2,
      'text': ('text',),
      'label': 'mood',
      **values,
    })  # fmt: skip
    config.tasks = ('own',)
    config.variants = ('single',)
    config = config_lib.from_config_dict(config)
    return plan_lib.make_plan(config, tmp_path / 'work')

  return plan


def test_labels_and_dev_rows_are_in_the_identity(make, tmp_path):
  rows = list(enumerate(zip(_TEXTS * 10, ['up', 'down', 'no'] * 10)))
  plan = make(rows)
  assert plan.tasks['own'].labels == ('down', 'no', 'up')
  (found,) = identity.identities(plan, plan.runs).values()
  assert found['config.custom_tasks.own.labels'] == ['down', 'no', 'up']
  kept = json.loads((tmp_path / 'work/divisions/own.json').read_text())
  uids = plan.features['own']['dev'].uids
  assert [f'own/dev/{i}' for i in kept['dev']] == list(uids)
  assert len(plan.features['own']['train']) == 24
  # Labels that are given make the same runs.
  (again,) = identity.identities(
    make(rows, labels=('down', 'no', 'up')), plan.runs
  ).values()
  assert again == found
  # Until a run has trained, rows may be mended, and labels are found anew.
  more = make([*rows, (30, ('a new row', 'new'))])
  assert more.tasks['own'].labels == ('down', 'new', 'no', 'up')
  assert len(more.features['own']['train']) == 25
  plan = make(rows)
  plan.open_runs(plan.runs)
  plan.workspace.write_record(plan.runs[0].name, {'scores': {}})
  # Then a row with a new label is one line; nothing that was written changes.
  files = sorted((tmp_path / 'work').rglob('*'))
  with pytest.raises(errors.UserError) as caught:
    _ = make([*rows, (30, ('a new row', 'new'))]).features
  assert str(caught.value).startswith(
    f"{tmp_path}/a.csv:32: label 'new' is none of 'down', 'no', 'up'; these"
  )
  # So is a changed file.
  with pytest.raises(errors.UserError, match='train_rows was 24, is 25; rest'):
    _ = make([*rows, (30, ('a new row', 'up'))]).features
  assert sorted((tmp_path / 'work').rglob('*')) == files
  assert len(make(rows).features['own']['dev']) == 6


def test_a_start_reads_the_file_once(make, monkeypatch):
  """And once more for labels, until a run has trained on them."""
  rows = list(enumerate(zip(_TEXTS * 10, ['up', 'down', 'no'] * 10)))
  reads = []

  def count(name: str) -> None:
    read = getattr(sources, name)

    def counted(*arguments, **named):
      reads.append(name)
      return read(*arguments, **named)

    monkeypatch.setattr(sources, name, counted)

  count('read_labels')
  count('read_files')
  plan = make(rows)
  assert len(plan.features['own']['dev']) == 6
  assert reads == ['read_labels', 'read_files']
  plan.open_runs(plan.runs)
  plan.workspace.write_record(plan.runs[0].name, {'scores': {}})
  reads.clear()
  assert len(make(rows).features['own']['dev']) == 6
  assert reads == ['read_files']
