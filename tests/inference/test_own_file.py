"""Files of predictions. Oracle: the model's results, written down here."""

import json

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
      assert rows.pop(0) == ['prediction', 'negative', 'positive']
    for row, result in zip(rows, expected, strict=True):
      assert row[0] == result.prediction.said['label']
      assert [float(p) for p in row[1:]] == pytest.approx(
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
  assert output.read_text() == f'prediction\n{score:.3f}\n'


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
  ('output', 'message'),
  [
    ('out.csv', r'out.csv: ends neither in .tsv nor in .jsonl'),
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


@pytest.mark.parametrize(
  ('source', 'line', 'empty'),
  [('in.tsv', 3, ' '), ('in.jsonl', 2, '{"text": ""}')],
)
def test_an_empty_text_is_refused(model, tmp_path, source, line, empty):
  """Its prediction would look like any other."""
  lines = ['text', 'a dog', empty]
  if source == 'in.jsonl':
    lines = ['{"text": "a dog"}', empty]
  (tmp_path / source).write_text('\n'.join(lines) + '\n')
  with pytest.raises(
    errors.UserError, match=rf"{source}:{line}: 'text' is empty; give a text$"
  ):
    own_file.predict(
      model, _TASK, str(tmp_path / source), str(tmp_path / 'out.tsv')
    )
  assert not (tmp_path / 'out.tsv').exists()


def test_a_row_that_is_none_leaves_no_output(model, few_at_once, tmp_path):
  """However much was written before it."""
  lines = [json.dumps({'text': text}) for text in _TEXTS]
  (tmp_path / 'in.jsonl').write_text('\n'.join([*lines, '{"text": 1}']))
  with pytest.raises(
    errors.UserError, match=r"in.jsonl:6: 'text' is not a string"
  ):
    own_file.predict(
      model, _TASK, str(tmp_path / 'in.jsonl'), str(tmp_path / 'out.jsonl')
    )
  assert [path.name for path in tmp_path.iterdir()] == ['in.jsonl']
