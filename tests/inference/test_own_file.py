"""Files of predictions. Oracle: the model's results, written down here."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from bam_jax import errors
from bam_jax.inference import model as model_lib
from bam_jax.inference import own_file
from tests.serving import tiny_model

_TEXTS = [f'a {word} dog .' for word in ('big', 'old', 'wet', 'new', 'fine')]
_TASK = 'demo_sentiment'


@pytest.fixture(scope='module')
def model():
  return tiny_model.make().model


@pytest.fixture
def few_at_once(monkeypatch):
  """The file is read and written in three parts, the last one not full."""
  monkeypatch.setattr(model_lib, '_CHUNK', 4)


@pytest.mark.parametrize('source', ['in.tsv', 'in.jsonl'])
@pytest.mark.parametrize('output', ['out.tsv', 'out.jsonl', None])
def test_lines_out_are_lines_in(
  model, few_at_once, tmp_path, capsys, source, output
):
  texts = [*_TEXTS, 'dog ' * 50, *_TEXTS[::-1]]
  lines = ['text', *texts]
  if source == 'in.jsonl':
    lines = [json.dumps({'text': text}) for text in texts]
  (tmp_path / source).write_text('\n'.join(lines) + '\n')
  path = output and str(tmp_path / output)
  own_file.predict(model, _TASK, str(tmp_path / source), path)
  written = capsys.readouterr().out
  if output:
    assert written == ''
    written = (tmp_path / output).read_text()
  expected = model.predict(model.encode(_TASK, [(t,) for t in texts]))
  if (output or source).endswith('jsonl'):
    found = [json.loads(line) for line in written.splitlines()]
    assert [row['label'] for row in found] == [
      r.prediction.said['label'] for r in expected
    ]
    assert [row['truncated'] for row in found] == [
      i == len(_TEXTS) for i in range(len(texts))
    ]
    for row, result in zip(found, expected, strict=True):
      assert row['probabilities'] == pytest.approx(
        result.prediction.said['probabilities'], abs=1e-5
      )
  else:
    rows = [line.split('\t') for line in written.splitlines()]
    if source == 'in.tsv':
      assert rows.pop(0) == ['prediction', 'negative', 'positive', 'error']
    for row, result in zip(rows, expected, strict=True):
      assert (row[0], row[-1]) == (result.prediction.said['label'], '')
      assert [float(p) for p in row[1:-1]] == pytest.approx(
        result.prediction.probabilities, abs=1e-4
      )


def test_scores(model, tmp_path):
  (tmp_path / 'in.tsv').write_text('text_a\ttext_b\na dog\ta hound\n')
  output = tmp_path / 'out.tsv'
  own_file.predict(
    model, 'demo_similarity', str(tmp_path / 'in.tsv'), str(output)
  )
  (result,) = model.predict(
    model.encode('demo_similarity', [('a dog', 'a hound')])
  )
  score = result.prediction.said['score']
  assert output.read_text() == f'prediction\terror\n{score:.3f}\t\n'


@pytest.mark.parametrize(
  ('task', 'message'),
  [
    (None, r'^--task is missing; give one of demo_sentiment, demo_similarity$'),
    (
      'mood',
      '^--task=mood: no such task; give one of demo_sentiment, demo_sim',
    ),
  ],
)
def test_a_task_that_is_none(model, task, message):
  with pytest.raises(errors.UserError, match=message):
    own_file.predict(model, task, 'in.tsv', None)


@pytest.mark.parametrize(
  'output', ['rows.tsv', './rows.tsv', 'link.tsv', 'hard.tsv']
)
def test_the_input_is_not_written_over(model, tmp_path, monkeypatch, output):
  monkeypatch.chdir(tmp_path)
  content = 'text\na fine movie .\n'
  Path('rows.tsv').write_text(content)
  Path('link.tsv').symlink_to('rows.tsv')
  os.link('rows.tsv', 'hard.tsv')
  with pytest.raises(errors.UserError, match='is the file of --input; choose'):
    own_file.predict(model, _TASK, 'rows.tsv', output)
  assert Path('rows.tsv').read_text() == content


@pytest.mark.parametrize(
  ('output', 'message'),
  [
    ('out.txt', r'out.txt: ends in none of .tsv, .csv, .jsonl; rename it'),
    ('none/out.tsv', r'none/out.tsv: cannot be written: No such file'),
  ],
)
def test_an_output_that_cannot_be(model, tmp_path, output, message):
  (tmp_path / 'in.tsv').write_text('text\na dog\n')
  with pytest.raises(errors.UserError, match=message):
    own_file.predict(
      model, _TASK, str(tmp_path / 'in.tsv'), str(tmp_path / output)
    )
  assert [path.name for path in tmp_path.iterdir()] == ['in.tsv']


_ROWS = [
  {'id': 7, 'text': 'a dog', 'who': 'x, y'},
  {'id': '08', 'text': ' ', 'who': 'z'},
  {'id': 'c', 'text': 'a big dog', 'who': '=1'},
]


def _write(path, rows) -> None:
  frame = pd.DataFrame(rows)
  if path.suffix == '.jsonl':
    path.write_text('\n'.join(map(json.dumps, rows)) + '\n')
  else:
    frame.to_csv(path, index=False, sep='\t' if path.suffix == '.tsv' else ',')


@pytest.mark.parametrize('keep', [None, (), ('who', 'id')])
@pytest.mark.parametrize('source', ['in.tsv', 'in.csv', 'in.jsonl'])
@pytest.mark.parametrize('output', ['out.tsv', 'out.csv', 'out.jsonl'])
def test_ids_and_errors(
  model, few_at_once, tmp_path, caplog, source, output, keep
):
  """A row without a prediction has its id and the reason; others go on."""
  rows = _ROWS * 3
  _write(tmp_path / source, rows)
  path = tmp_path / output
  own_file.predict(model, _TASK, str(tmp_path / source), str(path), keep)
  names = ['id'] if keep is None else list(keep)
  line = 2 if source == 'in.jsonl' else 3
  message = f"{tmp_path / source}:{line}: 'text' is empty; give a text"
  texts = [(row['text'],) for row in rows if row['text'].strip()]
  expected = [r.prediction for r in model.predict(model.encode(_TASK, texts))]
  if output == 'out.jsonl':
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[1] == {n: rows[1][n] for n in names} | {'error': message}
    assert list(found[0]) == [*names, 'label', 'probabilities', 'truncated']
    labels = [row['label'] for row in found if 'error' not in row]
  else:
    sep = '\t' if output == 'out.tsv' else ','
    found = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False)
    columns = [*names, 'prediction', 'negative', 'positive', 'error']
    # As the reader of TSV has it: without a header in, there is none out.
    if source != 'in.jsonl' or output == 'out.csv':
      assert list(found) == columns
    else:
      found = pd.read_csv(
        path, sep=sep, dtype=str, keep_default_na=False, names=columns
      )
    assert found.iloc[1][columns[len(names) :]].tolist() == [
      '',
      '',
      '',
      message,
    ]
    for name in names:
      assert found[name].tolist() == [str(row[name]) for row in rows]
    labels = found['prediction'][found['error'] == ''].tolist()
  assert labels == [each.text for each in expected]
  assert '3 rows of 9 have no prediction' in caplog.messages[-1]


@pytest.mark.parametrize(
  ('rows', 'keep', 'message'),
  [
    (
      _ROWS,
      ('where',),
      r'^--keep=where: the rows of .*in.csv have no such col',
    ),
    (
      [row | {'prediction': 1} for row in _ROWS],
      ('prediction',),
      r'^--keep=prediction: predictions have such a column too; leave it out$',
    ),
    (
      _ROWS[1:2] * 9,
      None,
      r"in.csv:2: 'text' is empty; give a text$",
    ),
  ],
  ids=['column', 'name', 'nothing'],
)
def test_nothing_is_written_of(
  model, few_at_once, tmp_path, rows, keep, message
):
  """However many rows were read before the end."""
  source, output = tmp_path / 'in.csv', tmp_path / 'out.csv'
  _write(source, rows)
  with pytest.raises(errors.UserError, match=message):
    own_file.predict(model, _TASK, str(source), str(output), keep)
  assert [path.name for path in tmp_path.iterdir()] == ['in.csv']
