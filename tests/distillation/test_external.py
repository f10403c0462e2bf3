"""External logits; the oracle is arithmetic by hand."""

import math

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.distillation import external
from bam_jax.distillation import logit_sets
from tests.distillation import tiny_tasks

_MOOD = tiny_tasks.make_task(
  'mood', 'classification', 'accuracy', labels=('down', 'up')
)
_STARS = tiny_tasks.make_task(
  'stars', 'regression', 'pearson', scale=(1.0, 5.0)
)
_TAGS = tiny_tasks.make_task('tags', 'tagging', 'span_f1', labels=('O', 'B-X'))
_LOG_3 = math.log(3)


def _features(tmp_path, task=_MOOD, rows=3, **parts) -> shards.Columns:
  records = (
    {
      'uid': f't/train/{n}',
      'input_ids': np.array([1, 2]),
      'length_a': 1,
      'label': 0,
    }
    for n in range(rows)
  )
  made_from = {
    'rows': 'abc',
    'task': task.definition(),
    'tokenizer': 'words',
    'max_length': 16,
    'swap': False,
  }
  directory = tmp_path / 'features'
  shards.write(directory, shards.feature_fields(), records, made_from | parts)
  return shards.open(directory, shards.feature_fields(), None)


def _write(directory, logits, task=_MOOD, rows='abc', order=None, name='big'):
  order = range(len(logits)) if order is None else order
  values = np.array([logits[n] for n in order], np.float32)
  uids = [f't/train/{n}' for n in order]
  external.write(directory, task, rows, uids, values, name, f'digest of {name}')


def _targets(directory, features, task=_MOOD, temperature=1.0):
  sets = [
    [external.open_set(path, features, task)]
    for path in external.find_sets(directory, task.name).values()
  ]
  task = task.with_head(external.REGRESSION_HEAD)
  return logit_sets.read_probs(sets, features, task, temperature)


@pytest.mark.parametrize('other', [{}, {'tokenizer': 'letters'}], ids=str)
def test_one_teacher_joined_by_uid_whatever_the_vocabulary(tmp_path, other):
  """Odds of 3, 1 and 1 / 3, in another order and with a row too many."""
  logits = [[0, _LOG_3], [0, 0], [_LOG_3, 0], [0, 9]]
  _write(tmp_path / 'mood', logits, order=(3, 1, 0, 2))
  np.testing.assert_allclose(
    _targets(tmp_path, _features(tmp_path, **other))[:, 1],
    [0.75, 0.5, 0.25],
    rtol=0,
    atol=1e-6,
  )


def test_several_teachers_are_averaged_over_those_that_have_the_task(tmp_path):
  """Probabilities 0.75 and 0.5 make 0.625; the third has another task."""
  _write(tmp_path / 'one' / 'mood', [[0, _LOG_3]])
  _write(tmp_path / 'two' / 'mood', [[1, 1]])
  _write(tmp_path / 'three' / 'stars', [[0.5]], _STARS)
  targets = _targets(tmp_path, _features(tmp_path, rows=1))
  np.testing.assert_allclose(targets, [[0.375, 0.625]], rtol=0, atol=1e-6)


def test_scores_are_taken_as_they_are(tmp_path):
  _write(tmp_path / 'stars', [[0.25], [1.0], [-0.1]], _STARS)
  targets = _targets(tmp_path, _features(tmp_path, _STARS), _STARS)
  np.testing.assert_allclose(targets, [[0.25], [1.0], [-0.1]], atol=1e-7)


@pytest.mark.parametrize(
  ('logits', 'options', 'message'),
  [
    ([[0, 1], [0, 1]], {}, 'no logits for t/train/2; write logits for the'),
    (
      [[0, 1]] * 3,
      {'rows': 'xyz'},
      "rows was 'xyz', is 'abc'.*write logits for the rows",
    ),
    (
      [[0, 1]] * 3,
      {
        'task': tiny_tasks.make_task(
          'mood', 'classification', 'accuracy', labels=('up', 'down')
        )
      },
      r"task.labels was \['up', 'down'\], is \['down', 'up'\]",
    ),
  ],
  ids=['missing-row', 'other-rows', 'label-order'],
)
def test_an_unfit_set_is_refused(tmp_path, logits, options, message):
  _write(tmp_path / 'mood', logits, **options)
  with pytest.raises(errors.UserError, match=message) as caught:
    _targets(tmp_path, _features(tmp_path))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('logits', 'task', 'name', 'message'),
  [
    ([[0, 1, 2]], _MOOD, 'big', r'have shape \[1, 3\]; give \[1, 2\]'),
    ([[0, 1], [0, math.inf]], _MOOD, 'big', 't/train/1 are not finite'),
    ([[0, 1]], _MOOD, '', 'the teacher is not named; give'),
    (
      [[0, 1]],
      _TAGS,
      'big',
      "a tagging task's logits depend on the vocab",
    ),
  ],
  ids=['width', 'not-finite', 'no-name', 'tokens'],
)
def test_what_is_no_set_is_not_written(tmp_path, logits, task, name, message):
  with pytest.raises(errors.UserError, match=message):
    _write(tmp_path / task.name, logits, task, name=name)
  assert not (tmp_path / task.name).exists()


def test_logits_of_tokens_need_the_same_vocabulary(tmp_path):
  features = _features(tmp_path, _TAGS, rows=1)
  made_from = external.fingerprint(
    _TAGS, 'abc', 'big', 'digest', features.fingerprint
  )
  logit_sets.write(
    logit_sets.LogitSet(tmp_path / 'tags', made_from),
    ['t/train/0'],
    np.zeros((2, 2), np.float32),
    prepare.label_metadata(_TAGS),
    np.array([2]),
  )
  external.open_set(tmp_path / 'tags', features, _TAGS)
  other = _features(tmp_path, _TAGS, rows=1, tokenizer='letters')
  with pytest.raises(errors.UserError, match='tokenize alike, but vocabulary'):
    external.open_set(tmp_path / 'tags', other, _TAGS)


def test_a_folder_without_a_set_for_the_task_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match='is not a directory'):
    external.find_sets(tmp_path / 'nowhere', 'mood')
  with pytest.raises(errors.UserError, match='has no logits for mood, neither'):
    external.find_sets(tmp_path, 'mood')
  _write(tmp_path / 'mood', [[0, 1]])
  _write(tmp_path / 'one' / 'mood', [[0, 1]])
  with pytest.raises(errors.UserError, match='has both mood/ and one/mood/'):
    external.find_sets(tmp_path, 'mood')


def test_a_set_without_the_swapped_copies_is_not_taken_for_one_with_them(
  tmp_path,
):
  """Kept as it was, it would leave a student without logits, run after run."""
  _write(tmp_path / 'mood', [[0, 1]] * 3)
  made_from = external.fingerprint(_MOOD, 'abc', 'big', 'digest of big')
  target = logit_sets.LogitSet(tmp_path / 'mood', made_from)
  assert external.exists(target, 3)
  with pytest.raises(
    errors.UserError,
    match=r'has 3 rows, but needs 6; .*into another --output',
  ):
    external.exists(target, 6)
  assert not external.exists(
    target._replace(directory=tmp_path / 'none'), rows=3
  )


def test_a_set_of_a_plan_for_itself_is_told_apart(tmp_path):
  features = _features(tmp_path)
  own = logit_sets.fingerprint(features, 'run', 'parameters')
  logit_sets.write(
    logit_sets.LogitSet(tmp_path / 'mood', own),
    ['t/train/0'],
    np.zeros((1, 2), np.float32),
    prepare.label_metadata(_MOOD),
  )
  with pytest.raises(
    errors.UserError, match='by the plan that wrote them; run that'
  ):
    external.open_set(tmp_path / 'mood', features, _MOOD)


def test_the_identity_tells_other_teachers_and_other_logits(tmp_path):
  features = _features(tmp_path, rows=1)
  _write(tmp_path / 'one' / 'mood', [[0, 1]])
  before = external.identity(tmp_path, features, _MOOD)
  assert before['logits.mood.one.teacher'] == 'big'
  assert before['logits.mood.one.digest'] == 'digest of big'
  _write(tmp_path / 'one' / 'mood', [[0, 2]])
  after = external.identity(tmp_path, features, _MOOD)
  assert [k for k in before if before[k] != after[k]] == ['logits.mood.one.set']


@pytest.mark.parametrize(
  'place', ['mood', 'big', 'big/mood', 'mood/manifest.json', 'mood/columns']
)
def test_a_set_with_a_link_is_refused(tmp_path, place):
  directory = tmp_path / 'logits'
  _write(
    directory / ('big/mood' if place.startswith('big') else 'mood'),
    [[0, 1]] * 3,
  )
  features = _features(tmp_path)
  if place == 'mood/columns':
    _targets(directory, features)
  (directory / place).rename(tmp_path / 'elsewhere')
  (directory / place).symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(errors.UserError, match=f'{place}: is a link, and'):
    _targets(directory, features)


def test_a_set_is_not_written_through_a_link(tmp_path):
  _write(tmp_path / 'elsewhere', [[0, 1]])
  before = sorted(path.name for path in tmp_path.rglob('*'))
  (tmp_path / 'mood').symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(errors.UserError, match='mood: is a symbolic link'):
    _write(tmp_path / 'mood', [[0, 1]] * 3)
  assert sorted(path.name for path in tmp_path.rglob('*')) == sorted(
    [*before, 'mood']
  )


@pytest.mark.parametrize('name', ['unlabelled', 'unlabelled.big'])
def test_a_teacher_named_like_the_rows_without_labels(tmp_path, name):
  """Its digest would stand where that of another set stands."""
  _write(tmp_path / name / 'mood', [[0, 0]])
  with pytest.raises(errors.UserError, match=f'{name}/ is a reserved folder'):
    external.find_sets(tmp_path, 'mood')
  (tmp_path / name).rename(tmp_path / 'big.unlabelled')
  assert external.find_sets(tmp_path, 'mood').keys() == {'big.unlabelled'}
