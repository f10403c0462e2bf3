"""Times this package's inference, as a process of `inference`.

Modes: prepare (trains and exports the model, writes each task's texts), ids
(`evaluate.predict` of tokenised rows, as for dev scores and teachers), texts
(`Model.encode` and `Model.predict`, as in the server), file
(`own_file.predict`, as `--mode=predict` with `--input` and `--output`).
"""

from collections.abc import Iterable, Mapping
import json
from pathlib import Path

import jax
import numpy as np
import scipy.special

from bam_jax import config as config_lib
from bam_jax.configs import minilm
from bam_jax.data import sources
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import train
from bam_jax.inference import model as model_lib
from bam_jax.inference import own_file
from bam_jax.training import evaluate
from bam_jax.training import setup as setup_lib
from benchmarks import inference
from benchmarks import worker


def make_config(data: Path) -> config_lib.Config:
  """Configures one multi-task run of a few steps."""
  config = minilm.get_config()
  config.tasks = inference.TASKS
  config.seeds = (0,)
  config.variants = ('multi',)
  config.data.dir = str(data)
  config.multi.max_steps = 10
  config.multi.batch_size = 32
  config.train.seeds_at_once = 1
  config.train.tensorboard = False
  config.plan.baselines = False
  return config_lib.from_config_dict(config)


def prepare(plan: plan_lib.Plan) -> None:
  """Trains and exports the model; writes texts and counts."""
  train.run(plan)
  export.export(plan, None, 'hf')
  examples = tokens = 0
  for name in inference.TASKS:
    task = plan.tasks[name]
    split = task.dev_splits[0]
    rows = [
      {'text': example.text_a}
      | ({'text_pair': example.text_b} if task.is_pair else {})
      for example in sources.read(task, split, plan.config.data)
    ]
    path = plan.workspace.root / f'{name}.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    features = plan.prepare_split(task, split)
    examples += len(features)
    tokens += len(features.ragged('input_ids')[0])
  counts = {'examples': examples, 'tokens': tokens}
  (plan.workspace.root / 'counts.json').write_text(json.dumps(counts))


class Systems:
  """What is timed: each returns the probabilities of all tasks' rows."""

  def __init__(self, plan: plan_lib.Plan, model: model_lib.Model):
    self._plan, self._model = plan, model
    self._params = plan.restore_params('multi-s0', best=True)
    self._root = plan.workspace.root
    self._features = {
      name: plan.prepare_split(plan.tasks[name], plan.tasks[name].dev_splits[0])
      for name in inference.TASKS
    }
    self._texts = {
      name: [
        tuple(json.loads(line).values())
        for line in (self._root / f'{name}.jsonl').open()
      ]
      for name in inference.TASKS
    }

  def ids(self, task: str) -> Iterable[Mapping[str, float]]:
    logits = evaluate.predict(
      self._plan.setup.programs,
      self._params,
      self._features[task],
      self._plan.tasks.index[task],
      self._plan.config.packing,
    )
    probs = scipy.special.softmax(logits.astype(np.float64), axis=-1)
    labels = self._plan.tasks[task].labels
    return [dict(zip(labels, row)) for row in probs.tolist()]

  def texts(self, task: str) -> Iterable[Mapping[str, float]]:
    inputs = self._model.encode(task, self._texts[task])
    found = self._model.predict(inputs)
    return [each.as_json()['probabilities'] for each in found]

  def file(self, task: str) -> Iterable[Mapping[str, float]]:
    source, output = self._root / f'{task}.jsonl', self._root / 'out.jsonl'
    output.unlink(missing_ok=True)
    own_file.predict(self._model, task, str(source), str(output))
    return [json.loads(line)['probabilities'] for line in output.open()]


def main() -> None:
  args = worker.inference_arguments(__doc__)
  config = make_config(args.workdir / 'data')
  setup_lib.configure_jax(config, args.workdir)
  setup_lib.start_devices(predicts=args.mode == 'file')
  plan = plan_lib.make_plan(config, args.workdir)
  if args.mode == 'prepare':
    prepare(plan)
    return
  system = getattr(Systems(plan, predict.load_model(plan, None)), args.mode)
  worker.run_inference(
    lambda: {task: system(task) for task in inference.TASKS},
    args.workdir / f'{inference.JAX}-{args.mode}.json',
    lambda: (jax.local_devices()[0].memory_stats() or {}).get(
      'peak_bytes_in_use', 0
    ),
  )


if __name__ == '__main__':
  main()
