"""The API reference is made from the docstrings without a warning."""

import documents
import pdoc
import pdoc.__main__
import pytest


@pytest.mark.fault
def test_the_command_makes_a_page_for_each_module(tmp_path):
  """Warnings are errors here: of annotations and names that don't resolve."""
  page = documents.ROOT / 'CONTRIBUTING.md'
  (command,) = (
    found
    for found in documents.spelt_out(tmp_path, page)
    if 'pdoc' in found.words
  )
  *arguments, target = command.after('-m', 'pdoc')
  assert target == 'build/api'
  assert 'build/' in (documents.ROOT / '.gitignore').read_text().split()
  pdoc.__main__.cli([*arguments, str(tmp_path / 'api')])
  modules = {
    path.relative_to(documents.ROOT).with_suffix('.html')
    for path in documents.ROOT.glob('bam_jax/**/*.py')
    if path.name != '__init__.py'
  }
  made = {p.relative_to(tmp_path / 'api') for p in tmp_path.rglob('*.html')}
  assert modules <= made
