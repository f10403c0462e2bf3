"""Equal rows, counted against loops over all pairs."""

import numpy as np
import pytest

from bam_jax.doctor import findings
from bam_jax.doctor import repeats
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import glue


def _split(
  name: str, split: str, texts: np.ndarray, label: np.ndarray
) -> rows_lib.Rows:
  task = glue.TASKS[name]
  places = np.arange(len(texts)) + 2
  file = task.tables[split].file
  return rows_lib.Rows(
    task, split, file=file, places=places, label=label, numbers=texts
  )


def _draw(
  generator: np.random.Generator, name: str, split: str, rows: int, texts: int
) -> rows_lib.Rows:
  """Rows of few different texts, so that many are equal."""
  return _split(
    name,
    split,
    generator.integers(12, size=(rows, texts)),
    generator.integers(2, size=rows).astype(np.float64),
  )


def _by_check(split: rows_lib.Rows) -> dict[str, findings.Finding]:
  return {found.check: found for found in repeats.check_split(split)}


@pytest.mark.parametrize('texts', [1, 2])
def test_duplicates_and_conflicts(texts):
  name = 'rte' if texts == 2 else 'cola'
  split = _draw(np.random.default_rng(texts), name, 'train', 90, texts)
  rows = [tuple(row) for row in split.numbers.tolist()]
  first = [rows.index(row) for row in rows]
  copies = [i for i, one in enumerate(first) if one != i]
  clashes = {
    one for i, one in enumerate(first) if split.label[i] != split.label[one]
  }
  found = _by_check(split)
  file = split.task.tables['train'].file
  assert found['duplicates'].count == len(copies) > 10
  assert found['duplicates'].places == tuple(
    f'{file}:{first[i] + 2} = {file}:{i + 2}' for i in copies[:20]
  )
  assert found['conflicts'].count == len(clashes) > 2
  ones = [int(p.split(':')[1].split()[0]) for p in found['conflicts'].places]
  assert ones == [one + 2 for one in sorted(clashes)[:20]]


def test_duplicates_in_the_other_order_are_counted_apart():
  texts = np.array([[1, 2], [2, 1], [1, 2], [3, 4]])
  found = _by_check(_split('qqp', 'train', texts, np.zeros(4)))
  assert list(found) == ['duplicates']
  assert found['duplicates'].count == 1
  assert '; 1 more with the texts in the other order' in (
    found['duplicates'].what
  )


def test_scores_conflict_from_a_tenth_of_the_scale_on():
  texts = np.array([[1, 2]] * 2 + [[3, 4]] * 3)
  label = np.array([2.0, 2.5, 1.0, 1.2, 1.51])
  found = _by_check(_split('stsb', 'train', texts, label))
  assert found['conflicts'].count == 1
  assert found['conflicts'].places == ('STS-B/train.tsv:4 = STS-B/train.tsv:6',)


def test_rows_of_training_files_in_every_other_split():
  generator = np.random.default_rng(3)
  train = [
    _draw(generator, 'rte', 'train', 40, 2),
    _draw(generator, 'cola', 'train', 8, 1),
    _draw(generator, 'mrpc', 'train', 30, 2),
  ]
  held = [
    _draw(generator, 'rte', 'dev', 30, 2),
    _draw(generator, 'cola', 'dev', 7, 1),
    _split('mrpc', 'test', np.array([[90, 91]]), np.array([np.nan])),
  ]
  wanted = {}
  for one in train:
    for other in held:
      pairs = [
        (i, j)
        for i, a in enumerate(one.numbers.tolist())
        for j, b in enumerate(other.numbers.tolist())
        if sorted(a) == sorted(b)
      ]
      if pairs:
        wanted[one.name, other.name] = (
          len({i for i, _ in pairs}),
          len({j for _, j in pairs}),
        )
  found = [*repeats.check_equal(train, held, ())]
  assert len(found) == len(wanted) == 3
  for overlap, (names, (here, there)) in zip(
    found, wanted.items(), strict=True
  ):
    assert names[0] == f'{overlap.task}/{overlap.split}'
    assert f'are also in {names[1]}, as {there:,} of' in overlap.what
    assert overlap.count == here
    # What is said to be equal is.
    for place in overlap.places:
      a, b = (int(part.rpartition(':')[2]) - 2 for part in place.split(' = '))
      one = next(s for s in train if s.name == names[0]).numbers[a]
      other = next(s for s in held if s.name == names[1]).numbers[b]
      assert sorted(one) == sorted(other)


def test_single_texts_are_counted_by_training_file():
  train = [
    _split('rte', 'train', np.array([[0, 1], [2, 3]]), np.zeros(2)),
    _split('cola', 'train', np.array([[0], [4]]), np.zeros(2)),
  ]
  held = [
    _split('rte', 'dev', np.array([[3, 0], [0, 7]]), np.zeros(2)),
    _split('cola', 'dev', np.array([[4], [1]]), np.zeros(2)),
  ]
  pair, single = repeats.check_texts(train, held, 8 * ('',))
  assert pair.count == 2
  assert pair.what.startswith('texts, of its 3 distinct ones')
  assert pair.what.endswith(': rte 2, cola 1')
  # Text 4 of CoLA's is an overlap of rows; text 1 stands in a pair.
  assert single.count == 1
  assert single.what.endswith(': rte 1')


def test_texts_are_equal_but_for_case_and_white_space():
  texts = ['A cat .', ' a  CAT\t.', 'a cat.', 'A cat .']
  numbers = repeats.number_texts(texts, {})
  assert numbers.tolist() == [0, 0, 1, 0]


def test_rows_without_labels_are_looked_for_in_what_is_scored(folder):
  first, second = folder.fields('RTE/dev.tsv', 3)[1:3]
  lines = [f'{first.upper()}\t{second}', 'of\tits own', ' \tno first']
  folder.write('more.tsv', ['text\ttext_pair', *lines])
  report = folder.report(**{'data.unlabelled': ('rte=more.tsv',)})
  found = {f.check: f for f in report.findings if f.split == 'unlabelled'}
  assert set(found) == {'overlap', 'empty text'}
  assert found['overlap'].severity == 'warning'
  assert found['overlap'].places == ('more.tsv:2 = RTE/dev.tsv:3',)
  # A run stops there.
  assert found['empty text'].severity == 'error'
  assert found['empty text'].places == ('more.tsv:4',)


def test_a_missing_file_of_rows_without_labels_is_an_error(folder):
  report = folder.report(**{'data.unlabelled': ('cola=none.jsonl',)})
  (found,) = [f for f in report.findings if f.split == 'unlabelled']
  assert (found.severity, found.check) == ('error', 'missing')
