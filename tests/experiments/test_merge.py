"""Shards of a plan brought together; the oracle is the plan made whole."""

import json
from pathlib import Path
import shutil

import pytest

from bam_jax import errors
from bam_jax.experiments import merge
from bam_jax.experiments import train
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.storage import lock

_TASKS = ('demo_sentiment', 'demo_similarity')
_FIELDS = {'variants': ('single', 'single_to_multi'), 'seeds': (3, 1)}
_RUNS = [
  f'{variant}-s{seed}{part}'
  for variant, parts in (
    ('single', [f'-{task}' for task in _TASKS]),
    ('single_to_multi', ['']),
  )
  for seed in (1, 3)
  for part in parts
]


@pytest.fixture(scope='module')
def whole(tiny_plan, tmp_path_factory) -> Path:
  workdir = tmp_path_factory.mktemp('whole')
  train.run(tiny_plan(workdir, **_FIELDS))
  return workdir


@pytest.fixture(scope='module')
def shards(tiny_plan, tmp_path_factory) -> list[Path]:
  workdirs = [tmp_path_factory.mktemp(f'shard_{i}') for i in (0, 1)]
  for i, workdir in enumerate(workdirs):
    train.run(tiny_plan(workdir, **_FIELDS, **{'plan.shard': f'{i}/2'}))
  return workdirs


@pytest.fixture
def workdir(tmp_path) -> Path:
  return tmp_path / 'work'


def _read(workdir, path):
  return json.loads((workdir / path).read_text())


def _files(directory: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file()
  }


def _spaces(*workdirs: Path) -> list[workspace_lib.Workspace]:
  return [workspace_lib.Workspace(workdir) for workdir in workdirs]


def test_a_shard_trains_its_part_and_reports_on_that(shards, whole):
  for workdir, seed in zip(shards, (3, 1)):
    names = sorted(path.name for path in (workdir / 'runs').iterdir())
    assert names == [name for name in _RUNS if f'-s{seed}' in name]
    for name in names:
      path = f'runs/{name}/config.json'
      assert _read(workdir, path) == _read(whole, path)
    report = _read(workdir, 'report.json')
    for found in report['variants'].values():
      assert found['missing'] == {}
      assert found['seeds'] == 1
    assert report['per_seed'].keys() == set(_FIELDS['variants'])
    assert 'With one seed the tests are' in (workdir / 'report.md').read_text()
    assert report['notes']['shard'].endswith('whose seeds are 3, 1')


def test_merged_shards_are_the_plan(tiny_plan, shards, whole, workdir, trained):
  plan = tiny_plan(workdir, **_FIELDS)
  merge.merge(plan, shards)
  ours, theirs = (_read(path, 'report.json') for path in (workdir, whole))
  assert ours['variants'] == theirs['variants']
  assert ours['per_seed'] == theirs['per_seed']
  assert sorted(path.name for path in (workdir / 'runs').iterdir()) == _RUNS
  for name in _RUNS:
    (source,) = (shard for shard in shards if (shard / 'runs' / name).is_dir())
    assert _files(workdir / 'runs' / name) == _files(source / 'runs' / name)
  # The logits too: a student can be trained again without its teachers.
  for name in _RUNS:
    shutil.rmtree(workdir / 'runs' / name / 'checkpoints')
  shutil.rmtree(workdir / 'runs' / _RUNS[-1])
  train.run(tiny_plan(workdir, **_FIELDS))
  assert trained == [_RUNS[-1]]
  done = f'runs/{_RUNS[-1]}/DONE'
  assert _read(workdir, done)['scores'] == _read(whole, done)['scores']


def test_what_is_missing_is_told(tiny_plan, shards, workdir):
  merge.merge(tiny_plan(workdir, **_FIELDS), shards[:1])
  found = _read(workdir, 'report.json')['variants']
  assert found['single']['missing'] == {'1': list(_TASKS)}
  assert found['single_to_multi']['missing'] == {'1': list(_TASKS)}


def test_what_is_there_stays_and_what_is_unfinished_is_replaced(
  shards, tmp_path, workdir
):
  source = tmp_path / 'source'
  for copy in (workdir, source):
    shutil.copytree(shards[0], copy)
  kept, unfinished = (workdir / 'runs' / _RUNS[i] for i in (2, 3))
  (kept / 'mine').write_text('mine')
  (unfinished / 'DONE').unlink()
  (unfinished / 'mine').write_text('mine')
  # What a copy that was cut short leaves behind.
  shutil.copytree(kept, source / 'runs' / '.old.tmp')
  merge.copy_runs(*_spaces(workdir), _spaces(source, shards[1], workdir))
  assert (kept / 'mine').exists()
  assert _files(unfinished) == _files(shards[0] / 'runs' / unfinished.name)
  assert sorted(path.name for path in (workdir / 'runs').iterdir()) == _RUNS


@pytest.mark.parametrize('place', ['there', 'other-source'])
def test_another_run_of_the_same_name_is_refused(shards, tmp_path, place):
  workdir, other = tmp_path / 'work', tmp_path / 'other'
  shutil.copytree(shards[0], other)
  path = other / 'runs' / _RUNS[2] / 'config.json'
  changed = _read(other, path) | {'config.single.learning_rate': 1.0}
  del changed['digest']
  path.write_text(json.dumps(changed))
  sources = [shards[1], other]
  if place == 'there':
    shutil.copytree(shards[0], workdir)
  else:
    sources.append(shards[0])
  before = _files(workdir)
  with pytest.raises(
    errors.UserError,
    match=rf'runs/{_RUNS[2]}: has other settings than .*/{_RUNS[2]}'
    r' \(config.single.learning_rate was (5e-05, is 1.0|1.0, is 5e-05)\);'
    r' choose another --workdir, or remove one',
  ):
    merge.copy_runs(*_spaces(workdir), _spaces(*sources))
  assert _files(workdir) == before


def test_a_field_that_one_record_lacks_has_its_default(shards, tmp_path):
  """In whichever of the two."""
  older, newer = tmp_path / 'older', tmp_path / 'newer'
  for workdir in (older, newer):
    shutil.copytree(shards[0], workdir)
  path = older / 'runs' / _RUNS[2] / 'config.json'
  record = _read(older, path)
  del record['config.model.remat'], record['digest']
  path.write_text(json.dumps(record))
  merge.copy_runs(*_spaces(older), _spaces(newer))
  merge.copy_runs(*_spaces(newer), _spaces(older))
  record['weights'] = 'others'
  path.write_text(json.dumps(record))
  with pytest.raises(errors.UserError, match=r"weights was 'others', is ''"):
    merge.copy_runs(*_spaces(older), _spaces(newer))


def test_logits_of_a_run_that_ended_otherwise_stay_where_they_are(
  shards, tmp_path
):
  other, workdir = tmp_path / 'other', tmp_path / 'work'
  shutil.copytree(shards[0], other)
  (space,) = _spaces(other)
  record = space.read_record(_RUNS[2])
  space.write_record(_RUNS[2], record | {'parameters': 'others'})
  shutil.copytree(other / 'runs', workdir / 'runs')
  merge.copy_runs(*_spaces(workdir), _spaces(shards[0]))
  teachers = {path.name for path in (workdir / 'teachers').iterdir()}
  assert teachers == {_RUNS[3]}


@pytest.mark.parametrize(
  'place',
  [
    f'runs/{_RUNS[2]}/outputs.npz',
    f'runs/{_RUNS[2]}/DONE',
    f'runs/{_RUNS[2]}/checkpoints',
    f'teachers/{_RUNS[2]}',
    f'teachers/{_RUNS[2]}/{_TASKS[0]}/manifest.json',
    'runs',
  ],
)
def test_a_link_in_a_source_is_refused(shards, tmp_path, workdir, place):
  """Each leads to what would be read or copied in its place."""
  source, elsewhere = tmp_path / 'source', tmp_path / 'elsewhere'
  shutil.copytree(shards[0], source)
  (source / place).rename(elsewhere)
  (source / place).symlink_to(elsewhere)
  with pytest.raises(errors.UserError, match=f'{place}: is a link, and'):
    merge.copy_runs(*_spaces(workdir), _spaces(shards[1], source))
  assert not workdir.exists()


def test_a_source_that_does_not_fit_is_refused_before_it_is_copied(
  shards, tmp_path, workdir
):
  source = tmp_path / 'source'
  shutil.copytree(shards[0], source)
  free = shutil.disk_usage(tmp_path).total
  with (source / 'runs' / _RUNS[2] / 'outputs.npz').open('wb') as file:
    file.truncate(free)  # A hole: it takes no room there.
  with pytest.raises(errors.UserError, match=r'copying needs .* are free; fr'):
    merge.copy_runs(*_spaces(workdir), _spaces(source))
  assert not list(workdir.iterdir())


def test_commands_write_in_folders_that_are_looked_through(whole):
  """`predictions` and `exports` come from other commands."""
  folders = {path.name for path in whole.iterdir() if path.is_dir()}
  assert folders
  assert folders <= {*lock.FOLDERS}


@pytest.mark.parametrize(
  ('sources', 'message'),
  [
    ([], r'--from is missing: .*--mode=merge'),
    (['nowhere'], r'--from=.*nowhere: has no finished run; give work direc'),
  ],
)
def test_nothing_to_merge_is_told(tiny_plan, workdir, sources, message):
  plan = tiny_plan(workdir, **_FIELDS)
  with pytest.raises(errors.UserError, match=message):
    merge.merge(plan, [workdir / source for source in sources])
  assert not workdir.exists()
