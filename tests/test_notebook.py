"""The notebook runs from its first cell to its last, in a kernel of its own."""

import documents
import nbclient
import nbformat
import pytest

_PATH = documents.ROOT / 'docs' / 'notebooks' / 'first_student.ipynb'


def _text(cell: nbformat.NotebookNode) -> str:
  """The value of a cell, as text."""
  return ''.join(
    output['data']['text/plain']
    for output in cell.outputs
    if output.output_type == 'execute_result'
  )


@pytest.mark.fault
def test_it_runs_and_predicts_what_it_has_learnt(tmp_path):
  book = nbformat.read(_PATH, as_version=4)
  (tmp_path / 'bam_jax').symlink_to(documents.ROOT / 'bam_jax')
  nbclient.NotebookClient(
    book, timeout=600, resources={'metadata': {'path': str(tmp_path)}}
  ).execute()
  *_, scores, predictions, exported = [
    _text(cell) for cell in book.cells if cell.cell_type == 'code'
  ]
  for variant in ('single', 'multi', 'single_to_multi'):
    assert f'\n{variant} ' in scores
  told = [line.split()[:2] for line in predictions.splitlines()]
  assert told == [['label', 'truncated'], ['0', 'up'], ['1', 'down']]
  assert exported == "['all', 'demo_sentiment', 'mood']"
  shown = [
    output.get('text', '') or output.get('data', {}).get('text/plain', '')
    for cell in book.cells
    for output in cell.get('outputs', ())
  ]
  assert any('single_to_multi-s0: 100%' in text for text in shown)
  assert not any('Warning' in text for text in shown)


def test_it_is_kept_without_outputs():
  book = nbformat.read(_PATH, as_version=4)
  nbformat.validate(book)
  for cell in book.cells:
    if cell.cell_type == 'code':
      assert not cell.outputs
      assert cell.execution_count is None
