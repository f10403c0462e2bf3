"""Kinds mixed in one packed batch, against each example alone in its own row.

An example sees only its own tokens, and is one unit of its task's loss.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax.core import losses
from bam_jax.data import batches
from bam_jax.data import prepare
from bam_jax.data import registry
from bam_jax.modeling import heads
from bam_jax.modeling import pretrained
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import mesh as mesh_lib
from tests.configs import kinds as kinds_config
from tests.kinds import rows as rows_lib
from tests.modeling import models

_GOLD_WEIGHT = 0.3


class _Chosen:
  """A sampler of given rows: (number of the task, row) each."""

  def __init__(self, tasks: int, rows: Sequence[tuple[int, int]]):
    self.weights = np.linspace(0.5, 1.5, tasks, dtype=np.float32)
    self.shares = np.ones(tasks) / tasks
    self._rows = np.array(rows).T

  def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    return self._rows[0], self._rows[1]


def _units(task, columns) -> int:
  """What the outputs are of: examples, or tokens."""
  return (
    columns.ragged('input_ids')[1][-1] if task.kind.per_token else len(columns)
  )


class _Plan:
  """Features of all tasks, a teacher of each, and a model."""

  def __init__(self, folder):
    rows_lib.write(folder)
    values = kinds_config.get_config()
    values.data.dir = str(folder)
    values.model.num_layers = 2
    self.config = config_lib.from_config_dict(values)
    self.tasks = registry.resolve(self.config)
    encoder = pretrained.load_encoder(self.config)
    self.features = [
      prepare.prepare(
        task, 'train', self.config.data, encoder.tokenizer,
        folder / 'features' / task.name,
      )
      for task in self.tasks.tasks
    ]  # fmt: skip
    self.tasks = task_lib.TaskTable(
      tuple(
        task.kind.weigh(task, columns)
        for task, columns in zip(self.tasks.tasks, self.features)
      )
    )
    rng = np.random.default_rng(0)
    self.teachers = [
      task.kind.teacher_probs(
        rng.normal(size=(_units(task, columns), task.num_outputs)), 1.0, columns
      )
      for task, columns in zip(self.tasks.tasks, self.features)
    ]
    model = heads.MultiTaskModel(
      encoder.config,
      len(self.tasks),
      self.tasks.num_outputs,
      self.tasks.token_heads,
      self.tasks.token_outputs,
    )
    self._params = models.draw_params(model, 0.1)

    def by_task(params, batch):
      logits = model.apply({'params': params}, batch, deterministic=True)
      _, parts = losses.multitask_loss(
        logits.slots, batch, self.tasks.class_mask, self.tasks.kinds,
        _GOLD_WEIGHT, logits.tokens,
      )  # fmt: skip
      return parts

    self._by_task = jax.jit(by_task)
    self.model = jax.jit(
      lambda batch: model.apply(
        {'params': self._params}, batch, deterministic=True
      )
    )

  def batch(self, rows, packed: bool, own_rows=None) -> dict[str, np.ndarray]:
    """The batch of some rows, or a process's own part of it."""
    packing = dataclasses.replace(
      self.config.packing,
      enabled=packed,
      row_buckets=(),
      row_length=48 if packed else 40,
    )
    make = batches.TrainBatches(
      self.tasks,
      range(len(self.tasks)),
      self.features,
      self.teachers,
      _Chosen(len(self.tasks), rows),
      packing,
      own_rows=own_rows,
    )
    return make(0)

  def losses(self, rows, packed: bool) -> dict[str, np.ndarray]:
    """Sums by task of the batch of some rows."""
    batch = self.batch(rows, packed)
    if packed:
      # A row holds several tasks, or there would be nothing to keep apart.
      assert (batch['segment_ids'].max(-1) > 1).any()
    return jax.device_get(self._by_task(self._params, batch))


@pytest.fixture(scope='module')
def plan(tmp_path_factory) -> _Plan:
  return _Plan(tmp_path_factory.mktemp('kinds'))


def test_packed_losses_are_those_of_examples_alone(plan):
  rows = [(task, row) for row in range(5) for task in range(len(plan.tasks))]
  packed = plan.losses(rows, packed=True)
  alone = [plan.losses([row], packed=False) for row in rows]
  np.testing.assert_allclose(
    packed['loss'], np.sum([each['loss'] for each in alone], axis=0), rtol=1e-5
  )
  np.testing.assert_array_equal(packed['count'], 5)
  assert (packed['loss'] > 0.01).all()


def test_rows_of_the_processes_make_up_the_batch(plan):
  """Oracle: the batch of a single process. Rows are dealt out in turn."""
  rows = [(task, row) for row in range(5) for task in range(len(plan.tasks))]
  whole = plan.batch(rows, packed=True)
  for first in range(2):
    own_rows = functools.partial(np.arange, first, step=2)
    part = plan.batch(rows, True, own_rows)
    for key, value in whole.items():
      np.testing.assert_array_equal(part[key], value[first::2], err_msg=key)


class _Programs:
  """What `evaluate.predict` asks of the programs of a plan."""

  def __init__(self, plan: _Plan):
    self.tasks = plan.tasks
    self.mesh = mesh_lib.make_mesh(config_lib.MeshConfig(data=1))
    self._model = plan.model

  def split_layers(self, params):
    return params

  def predict(self, params, batch):
    return self._model(batch)


def test_an_evaluation_batch_of_a_cpu_has_few_rows(plan):
  programs = _Programs(plan)
  for length, rows, found in (128, 64, 8), (128, 5, 5), (4096, 2, 1):
    packing = config_lib.PackingConfig(row_length=length, eval_rows=rows)
    assert evaluate.batch_rows(programs, packing) == found


@pytest.mark.parametrize('some', [False, True], ids=['all', 'some'])
def test_outputs_are_those_of_examples_alone(plan, some):
  packing = dataclasses.replace(plan.config.packing, row_length=48)
  unpacked = dataclasses.replace(packing, enabled=False)
  programs = _Programs(plan)
  for number, columns in enumerate(plan.features):
    only = np.array([7, 2, 30]) if some else None
    one, other = (
      evaluate.predict(programs, None, columns, number, each, only=only)
      for each in (packing, unpacked)
    )
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert np.std(one[:, 0]) > 0.01
