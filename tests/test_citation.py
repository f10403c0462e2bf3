"""What GitHub reads of the repository is well-formed and up to date."""

import documents
import pytest
import yaml

import bam_jax

_TEMPLATES = sorted(documents.ROOT.glob('.github/ISSUE_TEMPLATE/*.md'))


def test_the_citation_is_of_this_version_and_of_the_paper():
  cited = yaml.safe_load((documents.ROOT / 'CITATION.cff').read_text())
  assert cited['cff-version'] == '1.2.0'
  assert cited['message'] and cited['authors']
  assert str(cited['version']) == bam_jax.__version__
  paper = cited['preferred-citation']
  assert [author['family-names'] for author in paper['authors']] == [
    'Clark', 'Luong', 'Khandelwal', 'Manning', 'Le'
  ]  # fmt: skip
  assert paper['url'] in (documents.ROOT / 'README.md').read_text()


@pytest.mark.parametrize('path', _TEMPLATES, ids=lambda path: path.stem)
def test_an_issue_template_has_a_head_and_questions(path):
  _, head, text = path.read_text().split('---\n', 2)
  assert {'name', 'about', 'labels'} == set(yaml.safe_load(head))
  assert text.count('**') >= 4


def test_there_are_three_templates():
  assert {path.stem for path in _TEMPLATES} == {'bug', 'feature', 'question'}
