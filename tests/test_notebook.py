"""The notebook runs from its first cell to its last, in a kernel of its own."""

import documents
import nbclient
import nbformat
import pytest

_PATH = documents.ROOT / 'docs' / 'notebooks' / 'first_student.ipynb'


def _text(cell: nbformat.NotebookNode) -> str:
  """What a cell has shown on standard output or as its value."""
  return ''.join(
    output.get('text') or output.get('data', {}).get('text/markdown', '')
    for output in cell.outputs
    if output.get('name') != 'stderr'
  )


@pytest.mark.fault
def test_it_runs_and_predicts_what_it_has_learnt(tmp_path):
  book = nbformat.read(_PATH, as_version=4)
  (tmp_path / 'bam_jax').symlink_to(documents.ROOT / 'bam_jax')
  nbclient.NotebookClient(
    book, timeout=600, resources={'metadata': {'path': str(tmp_path)}}
  ).execute()
  shown = [_text(cell) for cell in book.cells if cell.cell_type == 'code']
  head, *rows = shown[-2].splitlines()
  assert 'mood (accuracy)' in head
  assert [row.split('|')[1].strip() for row in rows[1:]] == [
    'Single', 'Multi', 'Single→Multi'
  ]  # fmt: skip
  told = [line.split('\t')[:2] for line in shown[-1].splitlines() if line]
  assert told == [
    ['uid', 'prediction'],
    ['mood/test/0', 'up'],
    ['mood/test/1', 'down'],
  ]


def test_it_is_kept_without_outputs():
  book = nbformat.read(_PATH, as_version=4)
  nbformat.validate(book)
  for cell in book.cells:
    if cell.cell_type == 'code':
      assert not cell.outputs
      assert cell.execution_count is None
