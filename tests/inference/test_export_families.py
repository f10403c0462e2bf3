"""Exports of encoder families: by torch, by the program, and read back.

Oracle: transformers' own class for each kind, given the exported directory.
"""

import contextlib
import dataclasses
import io
import json
from pathlib import Path
import re

import jax
import numpy as np
import pytest

from bam_jax.data import features
from bam_jax.inference import card
from bam_jax.inference import export
from bam_jax.inference import stablehlo
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.tasks import classification
from bam_jax.tasks import demo
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_GOLDEN = Path(__file__).parents[1] / 'modeling' / 'golden'
# Golden models, and the pooling of examples.
_MADE = (
  ('electra-narrow', 'cls'),
  ('distilbert', 'cls'),
  ('ernie', 'cls'),
  ('deberta-v3', 'cls'),
  ('deberta-v2', 'cls'),
  ('modernbert', 'cls'),
  ('modernbert', 'mean'),
)


class _Choice(classification.Classification):
  """A score for each text, whose largest is the choice among some texts."""

  architecture = 'ForMultipleChoice'

  def export_settings(self, task):
    return {}


def _task(name, kind, text, labels=()):
  return task_lib.Task(
    name=name,
    kind=kind,
    labels=labels,
    metrics=kind.default_metrics,
    paper_metric='',
    tables={'train': task_lib.Table(text=text)},
  )


_TASKS = task_lib.TaskTable(
  (
    _task('pairs', kinds.KINDS['classification'], ('a', 'b'), ('x', 'y', 'z')),
    _task('choice', _Choice(), ('a', 'b'), ('yes',)),
    _task('tagging', kinds.KINDS['tagging'], (0,), ('O', 'B-A', 'I-A')),
    _task('qa', kinds.KINDS['qa'], ('question', 'context')),
  )
)
_TOKENIZER = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
_FACTS = card.Facts(
  name='test',
  run='multi-s0',
  variant='multi',
  teachers=(),
  encoder='random weights',
  note='',
  max_length=32,
  record={'versions': 'jax 0', 'scores': {}},
)


@dataclasses.dataclass(frozen=True)
class _Made:
  """A model of all tasks, its parameters and where it was exported."""

  model: heads.MultiTaskModel
  params: dict[str, object]
  directory: Path


def _make(directory: Path, name: str, pooling: str = 'cls') -> _Made:
  config = family.EncoderConfig(
    **huggingface.load_config(_GOLDEN / name)
    | {'vocab_size': _TOKENIZER.vocab_size, 'max_positions': 40}
    | {'pooling': pooling, 'dropout_head': 0.25}
  )
  model = heads.MultiTaskModel(
    config,
    len(_TASKS),
    _TASKS.num_outputs,
    _TASKS.token_heads,
    _TASKS.token_outputs,
  )
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(0.1, 0.2, x.shape).astype(np.float32),
    heads.abstract_params(model),
  )
  if name == 'modernbert':
    # It is not used, so training leaves it at that.
    params['encoder']['layer_0']['attention_norm']['scale'][:] = 1
  export.export(
    directory, config, _TOKENIZER, params, _TASKS.index, _TASKS, _FACTS
  )
  return _Made(model, params, directory)


@pytest.fixture(scope='module', params=_MADE, ids='-'.join, name='made')
def make(request, tmp_path_factory) -> _Made:
  return _make(tmp_path_factory.mktemp('exports'), *request.param)


def _inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Ids, types and mask of two rows, the second one shorter."""
  ids = np.random.default_rng(1).integers(5, _TOKENIZER.vocab_size, (2, 9))
  mask = np.array([[1] * 9, [1] * 6 + [0] * 3])
  types = np.array([[0] * 4 + [1] * 5, [0] * 3 + [1] * 3 + [0] * 3])
  return ids * mask, types, mask


def _logits(made: _Made) -> dict[str, np.ndarray]:
  """By the model itself: of each task [2, outputs], or [2, tokens, outputs]."""
  ids, types, mask = _inputs()
  batch = {
    'input_ids': ids,
    'token_type_ids': types,
    'positions': np.tile(np.arange(9), (2, 1)),
    'segment_ids': mask,
    'cls_index': np.zeros((2, 1), np.int32),
  }

  @jax.jit
  def apply(number: jax.Array) -> heads.Outputs:
    task_id = number * np.ones((2, 1), np.int32)
    variables = {'params': made.params}
    return made.model.apply(variables, batch | {'task_id': task_id}, True)

  found = {}
  for task in _TASKS.tasks:
    output = apply(_TASKS.index[task.name])
    logits = output.tokens if task.kind.per_token else output.slots[:, 0]
    found[task.name] = np.asarray(logits)[..., : task.num_outputs]
  return found


def test_torch_and_the_program_give_the_same_logits(made):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  expected = _logits(made)
  ids, types, mask = _inputs()
  of = families.FAMILIES[made.model.config.family]
  has_types = made.model.config.type_vocab_size > 1
  for task in _TASKS.tasks:
    directory = made.directory / task.name
    auto_class = getattr(transformers, f'AutoModel{task.kind.architecture}')
    model, told = auto_class.from_pretrained(
      directory, output_loading_info=True
    )
    # Every tensor is used, and none is missing.
    assert not any(told[key] for key in ('missing_keys', 'unexpected_keys'))
    assert type(model).__name__ == of.class_prefix + task.kind.architecture
    inputs = {'input_ids': ids, 'attention_mask': mask}
    inputs |= {'token_type_ids': types} if has_types else {}
    inputs = {key: torch.tensor(value) for key, value in inputs.items()}
    if task.name == 'choice':
      # Both rows are answers to one question.
      inputs = {key: value[None] for key, value in inputs.items()}
    with torch.no_grad():
      found = model.eval()(**inputs)
    if task.name == 'qa':
      logits = torch.stack([found.start_logits, found.end_logits], -1)
    elif task.name == 'choice':
      logits = found.logits[0, :, None]
    else:
      logits = found.logits
    real = mask > 0 if task.kind.per_token else slice(None)
    np.testing.assert_allclose(
      logits.numpy()[real], expected[task.name][real], rtol=0, atol=1e-5
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    assert ('token_type_ids' in tokenizer('a', 'b')) == has_types
    ours = json.loads((directory / 'config.json').read_text())
    model.save_pretrained(made.directory / 'saved')
    theirs = (made.directory / 'saved' / 'config.json').read_text()
    theirs = json.loads(theirs)
    del theirs['transformers_version']
    assert {key: ours.get(key, 'absent') for key in theirs} == theirs
  stablehlo.export(
    made.directory / 'programs', made.model.config, _TOKENIZER, made.params,
    _TASKS.index, _TASKS, _FACTS,
  )  # fmt: skip
  program = made.directory / 'programs' / 'all'
  compiled = jax.export.deserialize(
    (program / 'program.jax_export').read_bytes()
  )
  with np.load(program / 'weights.npz') as stored:
    found = compiled.call(
      dict(stored), *(x.astype(np.int32) for x in (ids, types, mask))
    )
  for task in _TASKS.tasks:
    real = mask > 0 if task.kind.per_token else slice(None)
    np.testing.assert_allclose(
      found[task.name][real], expected[task.name][real], rtol=0, atol=1e-5
    )


def test_encoder_and_pooler_come_back_bit_equal(made):
  config = dataclasses.replace(made.model.config, dropout_head=0.1)
  for name in ('pairs', 'choice', 'all'):
    path = made.directory / name
    assert family.EncoderConfig(**huggingface.load_config(path)) == config
    jax.tree.map(
      np.testing.assert_array_equal,
      huggingface.load_params(path, config),
      {key: made.params[key] for key in ('encoder', 'pooler')},
    )


@pytest.mark.parametrize('name', ['electra-narrow', 'distilbert'])
def test_the_cards_code_runs_where_auto_model_has_no_pooler(
  name, tmp_path, monkeypatch
):
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  made = _make(tmp_path, name, 'mean')
  text = (made.directory / 'pairs' / 'README.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  monkeypatch.chdir(made.directory / 'pairs')
  names, printed = {}, io.StringIO()
  with contextlib.redirect_stdout(printed):
    exec(compile(code, 'README.md', 'exec'), names)
  assert printed.getvalue().strip() in _TASKS['pairs'].labels
  ids, types, mask = _inputs()
  torch = names['torch']
  inputs = {'input_ids': ids, 'attention_mask': mask}
  if made.model.config.type_vocab_size > 1:
    inputs['token_type_ids'] = types
  found = names['model'](**{k: torch.tensor(x) for k, x in inputs.items()})
  np.testing.assert_allclose(
    found.logits.detach(), _logits(made)['pairs'], rtol=0, atol=1e-5
  )


def test_the_code_of_all_tasks_applies_every_head(made, monkeypatch):
  """To ids of our own in place of the tokenizer's: the first row, unpadded."""
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  directory = made.directory / 'all'
  text = (directory / 'README.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  monkeypatch.chdir(directory)
  names = {}
  with contextlib.redirect_stdout(io.StringIO()):
    exec(compile(code, 'README.md', 'exec'), names)
  ids, types, _ = _inputs()
  inputs = {'input_ids': ids[:1]}
  if made.model.config.type_vocab_size > 1:
    inputs['token_type_ids'] = types[:1]
  inputs = {k: names['torch'].tensor(x) for k, x in inputs.items()}
  monkeypatch.setitem(names, 'tokenizer', lambda *texts, **_: inputs)
  found = names['predict']('a text') | names['predict']('a text', 'another')
  expected = _logits(made)
  assert found.keys() == expected.keys()
  for name, logits in found.items():
    np.testing.assert_allclose(logits, expected[name][0], rtol=0, atol=1e-5)
