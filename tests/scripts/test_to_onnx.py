"""ONNX files of exported models, by onnxruntime. Skipped where it is not there.

Oracle: transformers' own class, or for a mean the sum by hand.
"""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy

from bam_jax.inference import export
from bam_jax.modeling import family
from bam_jax.modeling import heads
from tests.inference import test_export as glue
from tests.inference import test_export_kinds as kinds
from tests.modeling import models

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

from scripts import to_onnx  # noqa: E402

_DISTILBERT = dataclasses.replace(
  glue.CONFIG, family='distilbert', type_vocab_size=0
)
_MEAN = dataclasses.replace(glue.CONFIG, pooling='mean')
_TEXTS = (['the cat sat', 'a', 'no dinner'], ['a dog', 'fine books', 'b'])


def _export(config: family.EncoderConfig, name: str, path) -> None:
  """Exports random weights for a task, which is in one of two modules."""
  module = glue if name in glue.TASKS.names else kinds
  tasks = module.TASKS
  model = heads.MultiTaskModel(
    config,
    len(tasks),
    tasks.num_outputs,
    tasks.token_heads,
    tasks.token_outputs,
  )
  params = models.draw_params(model, 0.3)
  export.export(
    path, config, glue.TOKENIZER, params, tasks.index, tasks, module.FACTS
  )


def _by_transformers(path, inputs) -> np.ndarray:
  if (path / '2_Dense').exists():
    hidden = transformers.AutoModel.from_pretrained(path)(**inputs)[0]
    vectors = [x[m > 0].mean(0) for x, m in zip(
      hidden.detach().numpy(), inputs['attention_mask'].numpy()
    )]  # fmt: skip
    head = safetensors.numpy.load_file(path / '2_Dense' / 'model.safetensors')
    return np.array(vectors) @ head['linear.weight'].T + head['linear.bias']
  name = transformers.AutoConfig.from_pretrained(path).architectures[0]
  found = getattr(transformers, name).from_pretrained(path)(**inputs)
  # Of answers the start and the end.
  return torch.stack(list(found.values()), -1).detach().numpy()


@pytest.mark.parametrize(
  ('config', 'name'),
  [
    (glue.CONFIG, 'mnli'),
    *(
      pytest.param(*pair, marks=pytest.mark.fault)
      for pair in (
        (glue.CONFIG, 'stsb'),
        (glue.CONFIG, 'multilabel'),
        (glue.CONFIG, 'tagging'),
        (glue.CONFIG, 'qa'),
        (_DISTILBERT, 'mnli'),
        (_MEAN, 'mnli'),
      )
    ),
  ],
  ids=lambda value: getattr(value, 'family', value),
)
def test_a_file_gives_the_logits_of_the_export(config, name, tmp_path):
  _export(config, name, tmp_path)
  target = tmp_path / 'model.onnx'
  assert to_onnx.convert(tmp_path / name, target) < 1e-5
  session = onnxruntime.InferenceSession(target)
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
  inputs = tokenizer(*_TEXTS, padding=True, return_tensors='pt')
  assert {x.name for x in session.get_inputs()} == set(inputs)
  (found,) = session.run(None, {k: v.numpy() for k, v in inputs.items()})
  expected = _by_transformers(tmp_path / name, inputs)
  real = inputs['attention_mask'].numpy() > 0
  if found.ndim < 3:
    real = slice(None)
  expected = expected.reshape(found.shape)[real]
  np.testing.assert_allclose(found[real], expected, rtol=0, atol=1e-5)
  assert expected.std() > 0.05


def test_what_is_no_model_of_one_task_is_refused(tmp_path, monkeypatch, capsys):
  _export(glue.CONFIG, 'mnli', tmp_path)
  for folder, message in (
    ('all', 'all: has no single head; give the directory of one task'),
    ('none', 'none: has no config.json; give an export'),
  ):
    argv = ['to_onnx.py', str(tmp_path / folder), str(tmp_path / 'x.onnx')]
    monkeypatch.setattr('sys.argv', argv)
    with pytest.raises(SystemExit) as error:
      to_onnx.main()
    assert error.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
  assert not (tmp_path / 'x.onnx').exists()


@pytest.mark.fault
def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
  _export(glue.CONFIG, 'mnli', tmp_path)
  monkeypatch.setattr(to_onnx, 'TOLERANCE', -1)
  with pytest.raises(ValueError, match='onnxruntime differs by'):
    to_onnx.convert(tmp_path / 'mnli', tmp_path / 'x.onnx')
  assert not (tmp_path / 'x.onnx').exists()
