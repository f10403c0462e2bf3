"""Hostile names and texts in every format, read back by its own parser."""

import csv
import html.parser
import io
import json
import re

import markdown_it
import pytest
import yaml

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax.doctor import command as doctor
from bam_jax.inference import card
from bam_jax.inference import submission
from bam_jax.modeling import family
from bam_jax.reporting import report
from bam_jax.reporting import scores as scores_lib
from bam_jax.tasks import kind
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

HOSTILE = (
  'a\tb',
  'a\nb\r\nc',
  'next\x85line\u2028and\u2029page\x0b\x0c\x1c',
  '\x1b[2J\x07\x00bell',
  '<script>alert("1")</script>',
  '</svg></title><img src=x onerror=alert(1)>',
  '&lt;b&gt; &amp;',
  '=HYPERLINK("http://x","y")',
  '+1',
  '-1+cmd|calc',
  '@sum(a1)',
  '\t=1',
  'a | b \\| c \\',
  '*a* _b_ __c__ ~~d~~ `e` ``f``',
  '[a](javascript:alert(1)) ![b](http://x/y.png)',
  '[a]: http://x',
  '[a][b]',
  '# head',
  '- item',
  '1. item',
  '---',
  '> quote',
  '```',
  '$x$ $$y$$',
  r'\input{/etc/passwd} \\ % # & ^ ~ { } _',
  '[1ex]',
  '*',
  "'; drop table",
  '---\nlicense: mit\n---',
  'key: [value, {a: b}] # c',
  '{{ 7 * 7 }} {% raw %}',
  '\ud800 half',
  'grüße 你好 👩‍👩‍👧',
  '',
  ' ',
)
_IDS = [str(i) for i in range(len(HOSTILE))]
each = pytest.mark.parametrize('text', HOSTILE, ids=_IDS)
# For a whole report: of each kind of markup one, and none that is no name.
_WORDS = (1, 2, 3, 5, 7, 12, 13, 14, 17, 22, 23, 24, 25, 28, 31, 32)
each_word = pytest.mark.parametrize('text', [HOSTILE[i] for i in _WORDS])

_PARSER = markdown_it.MarkdownIt('commonmark').enable(
  ['table', 'strikethrough']
)
# What only a renderer of Markdown with HTML, links or emphasis shows.
_ACTIVE = {
  'html_inline', 'html_block', 'link_open', 'image', 'em_open', 'strong_open',
  's_open', 'hardbreak', 'softbreak',
}  # fmt: skip


def _shown(text):
  """Text on one line, as it is to be seen."""
  return escape.plain(' '.join(text.split()))


def _tokens(text):
  """All tokens of Markdown, those inside of lines too."""
  for token in _PARSER.parse(text):
    yield token
    yield from token.children or ()


def _texts(tokens):
  return ''.join(t.content for t in tokens if t.type in ('text', 'code_inline'))


@each
def test_plain_text_is_one_line_that_prints(text):
  found = escape.plain(text)
  assert len(found.splitlines()) <= 1
  assert not re.search(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff]', found)
  found.encode()


@each
def test_a_row_of_tsv_has_its_fields(text):
  row = escape.tsv(['uid', text, 0.5])
  assert row.split('\t') == ['uid', escape.plain(text), '0.5']
  assert len(row.splitlines()) == 1


@each
def test_a_field_of_csv_is_no_formula(text):
  file = io.StringIO()
  csv.writer(file, lineterminator='\n').writerow([escape.csv(text), 1.5])
  (row,) = csv.reader(io.StringIO(file.getvalue()))
  assert row[0][:1] not in [*'=+-@\t\r\n']
  assert row[0].removeprefix("'") == escape.plain(text).removeprefix("'")
  assert row[1] == '1.5'


@each
def test_markdown_shows_the_text_and_does_nothing(text):
  table = f'| h | i |\n|---|---|\n| {escape.markdown(text)} | 7 |\n'
  paragraph = escape.paragraph(text)
  for source, more in ((table, 'hi7'), (paragraph, '')):
    tokens = list(_tokens(source))
    assert not _ACTIVE & {token.type for token in tokens}
    found = _texts(tokens)
    if more:
      assert len([t for t in tokens if t.type == 'td_open']) == 2
      assert found == f'hi{_shown(text)}7'
    else:
      kinds = {token.type for token in _PARSER.parse(source)}
      assert kinds <= {'paragraph_open', 'inline', 'paragraph_close'}
      assert found == _shown(text)


@each
def test_a_code_span_of_markdown_is_the_text(text):
  (inline,) = (
    t for t in _PARSER.parse(f'a {escape.code(text)} b') if t.children
  )
  types = [token.type for token in inline.children]
  assert types == ['text', 'code_inline', 'text']
  assert inline.children[1].content.strip() == escape.plain(text).strip()


@each
def test_latex_has_no_special_letter_left(text):
  found = escape.latex(text)
  assert '\n' not in found and not found.startswith(('[', '*'))
  known = (
    r'\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}'
    r'|\\textbar\{\}|\$(<|>|-|\\to|\\lambda|\\Delta)\$|\\[{}$&#%_]|^\{\}'
  )
  rest = re.sub(known, '', found)
  assert not re.search(r'[\\{}$&#^_~%]', rest)


class _Page(html.parser.HTMLParser):
  """Tags, attributes and text of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.names, self.text = [], set(), ''
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.names |= {name for name, _ in attrs}

  def handle_data(self, data):
    self.text += data


def _report(folder, text):
  """A report in which a name, a note, a task, a split, ... are a text."""
  task = task_lib.Task(
    name=text,
    kind=kinds.KINDS['classification'],
    labels=('0', '1'),
    metrics=('accuracy', text),
    paper_metric='accuracy',
    tables={'train': task_lib.Table(text=('a',), label='label')},
    dev_splits=(text,),
  )
  own = config_lib.VariantConfig(like='multi')
  config = config_lib.Config(
    name=text,
    note=text,
    tasks=(text,),
    variants=('single', 'multi', 'own'),
    custom_variants={'own': own},
    seeds=(0,),
  )
  folder.mkdir()
  curve = folder / 'metrics.jsonl'
  line = {'step': 0, 'loss': 1.0, f'loss/{text}': 1.0, f'examples/{text}': 1}
  curve.write_text(json.dumps(line) + '\n' + json.dumps(line | {'step': 1}))
  runs = [
    scores_lib.RunScores(
      variant, seed, text,
      {text: {'accuracy': 50.0 + seed, text: float('nan')}},
      curve, folder / 'none.npz', {}, None, {text: {text: text}},
    )
    for variant in config.variants
    for seed in (0,)
  ]  # fmt: skip
  report.write(
    folder, config, task_lib.TaskTable((task,)), runs, {'note': text}
  )
  return {
    path.suffix: path.read_text()
    for path in folder.iterdir()
    if path.name.startswith(('report', 'scores')) and path.suffix != '.png'
  }


@pytest.fixture(scope='module')
def harmless(tmp_path_factory):
  """The same report about a word."""
  return _report(tmp_path_factory.mktemp('report') / 'out', 'word')


@each_word
def test_a_report_about_it_is_built_like_one_about_a_word(
  tmp_path, harmless, text
):
  found = _report(tmp_path / 'out', text)
  page, plain = _Page(found['.html']), _Page(harmless['.html'])
  # A name's underscores have places for breaks.
  assert [tag for tag in page.tags if tag != 'wbr'] == plain.tags
  assert page.names == plain.names
  types = [
    [token.type for token in _tokens(source) if token.type != 'text']
    for source in (found['.md'], harmless['.md'])
  ]
  assert types[0] == types[1]
  assert not _ACTIVE - {'strong_open'} & set(types[0])
  commands = [
    re.findall(r'\\(?:begin|end|caption|label|toprule|bottomrule|input)', tex)
    for tex in (found['.tex'], harmless['.tex'])
  ]
  assert commands[0] == commands[1]
  assert found['.tex'].count('\n') == harmless['.tex'].count('\n')
  rows = list(csv.reader(io.StringIO(found['.csv'])))
  assert {len(row) for row in rows} == {7}
  assert {row[2] for row in rows[1:]} == {escape.csv(text)}
  assert not any(
    cell[:1] in [*'=+-@\t\r']
    for row in rows
    for cell in (*row[:5], row[6])
    if cell
  )
  assert json.loads(found['.json'])['config']['name'] == text


@each
def test_a_card_about_it_is_front_matter_and_plain_text(text):
  task = task_lib.Task(
    name='mood',
    kind=kinds.KINDS['classification'],
    labels=(text, 'other'),
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={'train': task_lib.Table(text=('a',), label='label')},
  )
  facts = card.Facts(
    name=text, run=text, variant=text, teachers=(text,), encoder=text,
    note=text, max_length=32,
    record={
      'versions': text,
      'scores': {'mood': {text: {text: float('nan')}}},
      'undefined': {'mood': {text: {text: text}}},
    },
  )  # fmt: skip
  found = card.write([task], facts, family.EncoderConfig(1, 1, 1, 1, 1))
  _, front, body = found.split('---\n', 2)
  assert yaml.safe_load(front) == {
    'library_name': 'transformers',
    'pipeline_tag': 'text-classification',
    'tags': ['bert', 'multi-task', 'knowledge-distillation', 'bam-jax'],
  }
  tokens = list(_tokens(body))
  assert not (_ACTIVE - {'softbreak'}) & {token.type for token in tokens}
  headings = [t for t in tokens if t.type == 'heading_open']
  assert [t.tag for t in headings] == ['h1', 'h2', 'h2', 'h2']
  assert len([t for t in tokens if t.type == 'td_open']) == 4
  (spans,) = (
    [s.content for s in t.children if s.type == 'code_inline']
    for t in tokens
    if t.children and t.content.startswith('mood: logits')
  )
  assert spans[0].strip() == escape.plain(text).strip()


@each
def test_predictions_have_a_line_a_row(tmp_path, text):
  task = task_lib.Task(
    name='mood',
    kind=kinds.KINDS['classification'],
    labels=(text, 'other'),
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={},
  )
  path = tmp_path / 'out.tsv'
  submission.write_tsv(
    path,
    task,
    [
      kind.Prediction('mood/test/0', text, {}, (0.75, 0.25)),
      kind.Prediction('mood/test/1', 'other', {}, (0.25, 0.75)),
    ],
  )
  rows = [line.split('\t') for line in path.read_text().splitlines()]
  assert [row[:2] for row in rows] == [
    ['uid', 'prediction'],
    ['mood/test/0', escape.plain(text)],
    ['mood/test/1', 'other'],
  ]
  assert rows[0][2:] == [escape.plain(text), 'other']
  assert {len(row) for row in rows} == {4}


# A finding names eight labels at most, in 300 characters.
@pytest.mark.parametrize('first', range(0, len(HOSTILE), 4))
def test_the_doctor_tells_of_labels_safely(tmp_path, capsys, first):
  """Of those that no row has, which are named in a finding."""
  (tmp_path / 'rows.jsonl').write_text('{"text": "a", "label": "b"}\n' * 2)
  config = config_lib.default_config()
  config.tasks = ('mood',)
  config.custom_tasks.mood = config_lib.custom_task(
    labels=('b', *HOSTILE[first : first + 4]),
    text=('text',),
    train='rows.jsonl',
    dev='rows.jsonl',
    format='jsonl',
  )
  config.data.dir = str(tmp_path)
  doctor.run(config_lib.from_config_dict(config), tmp_path)
  printed = capsys.readouterr().out
  assert not re.search(r'[\x00-\x09\x0b-\x1f\x7f-\x9f]', printed)
  tokens = list(_tokens((tmp_path / 'doctor.md').read_text()))
  assert not (_ACTIVE - {'softbreak'}) & {token.type for token in tokens}
  told = json.loads((tmp_path / 'doctor.json').read_text())['findings']
  cells = [t for t in tokens if t.type == 'td_open']
  assert len(cells) == 6 * len(told) + 8 * 2
  found = _texts(tokens)
  for text in HOSTILE[first : first + 4]:
    assert _shown(text) in found
