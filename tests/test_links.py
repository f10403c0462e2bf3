"""Links in the documents lead to files and headings that are there."""

from pathlib import Path
import re

import documents
import pytest

_LINK = re.compile(r'(?<!\\)\[[^\]]*\]\(([^)\s]+)\)')
_REFERENCE = re.compile(r'^\[[^\]]+\]: (\S+)$', re.MULTILINE)
_HEADING = re.compile(r'^#+ (.*)$', re.MULTILINE)


def _anchors(path: Path) -> set[str]:
  """Of a page's headings, as GitHub makes them."""
  text = re.sub(r'^```.*?^```$', '', path.read_text(), flags=re.S | re.M)
  titles = [re.sub(r'[^\w\- ]', '', t.lower()) for t in _HEADING.findall(text)]
  return {title.replace(' ', '-') for title in titles}


def test_an_anchor_is_made_as_github_does(tmp_path):
  page = tmp_path / 'page.md'
  page.write_text("# On GKE\n```sh\n# no heading\n```\n## What's `new`, 2.0?\n")
  assert _anchors(page) == {'on-gke', 'whats-new-20'}


@pytest.mark.parametrize('page', documents.PAGES, ids=documents.name_of)
def test_links_lead_somewhere(page):
  text = page.read_text()
  for link in _LINK.findall(text) + _REFERENCE.findall(text):
    if link.startswith('https://'):
      continue
    name, _, anchor = link.partition('#')
    target = (page.parent / name).resolve() if name else page
    assert target.is_relative_to(documents.ROOT), link
    assert target.exists(), link
    if anchor:
      assert anchor in _anchors(target), link


def test_there_are_links_to_check():
  links = [_LINK.findall(page.read_text()) for page in documents.PAGES]
  local = [x for found in links for x in found if not x.startswith('http')]
  assert len(local) > 20
  assert any('#' in link for link in local)
