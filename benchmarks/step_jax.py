"""Times this package's training step, as a process of `train_step`.

Modes: prepare (the features, nothing timed), packed, padded (one example a
row), packed-no-attention-dropout, seeds (eight models at once, packed), weak
and strong (packed, spread over all GPUs that are seen, as many examples on each
or all together), weak-sharded (they share the parameters too), rates (what a
matrix product and a copy reach on this GPU, and with them the floor of a packed
step). With a --row_length other than 128, texts are longer and generated.
"""

from collections import Counter
import dataclasses
from pathlib import Path
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from bam_jax import config as config_lib
from bam_jax.core import packing as packing_lib
from bam_jax.core import step as step_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import train
from bam_jax.modeling import family
from bam_jax.runtime import profiling
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib
from bam_jax.training import setup as setup_lib
from benchmarks import worker

_SEEDS = 8


def make_config(
  size: str,
  data: str,
  vocab: str,
  packed: bool = True,
  attention_dropout: float = 0.1,
  batch_size: int = worker.BATCH_SIZE,
  shared: bool = False,
  row_length: int = worker.ROW_LENGTH,
) -> config_lib.Config:
  """Configures the paper's multi-task run, from random weights.

  `size` is a value of config.model.arch, or a folder with weights.
  """
  config = config_lib.default_config()
  config.name = 'train_step'
  config.tasks = tuple(glue.TASKS)
  config.variants = ('multi',)
  config.data.dir = data
  if Path(size).is_dir():
    config.model.init = size
  else:
    config.model.arch = size
    config.model.vocab = vocab
  config.multi.batch_size = batch_size
  config.packing.row_length = row_length
  config.packing.enabled = packed
  config.model.dropout_attention = attention_dropout
  if shared:
    config.mesh.data, config.mesh.fsdp = 1, -1
  return config_lib.from_config_dict(config)


def training_batches(
  config: config_lib.Config,
  workdir: Path,
  steps: int,
  rows_multiple: int = 1,
) -> tuple[plan_lib.Plan, list[dict[str, np.ndarray]]]:
  """Makes the first batches of the multi-task run of seed 0."""
  plan = plan_lib.make_plan(config, workdir)
  train.prepare(plan)
  spec = plan.data.make_spec(
    plan.runs[0], plan.packing, rows_multiple=rows_multiple
  )
  return plan, [spec.batches(step) for step in range(steps)]


def long_batches(
  tasks: task_lib.TaskTable,
  vocab_size: int,
  packing: config_lib.PackingConfig,
  steps: int,
  rows_multiple: int = 1,
) -> list[dict[str, np.ndarray]]:
  """Packs texts of 20 to 500 random words, 270 in the mean.

  Lengths are log-normal, cut to a row. Batches have few numbers of rows, as in
  a run.
  """
  rng = np.random.default_rng(0)
  count = worker.LONG_BATCH_SIZE
  longest = min(500, packing.row_length)
  lengths = rng.lognormal(5.5, 0.5, (steps, count)).clip(20, longest)
  lengths = lengths.astype(int)
  packed = [
    packing_lib.pack(row, packing.row_length, packing.slots) for row in lengths
  ]
  seen = Counter(places.num_rows for places in packed)
  buckets = packing_lib.choose_buckets(seen, max(seen))
  target = np.zeros((count, tasks.num_outputs), np.float32)
  target[:, 0] = 1.0
  batches = []
  for places, row in zip(packed, lengths):
    rows = packing_lib.bucket(places.num_rows, buckets, rows_multiple)
    batches.append(
      packing_lib.assemble(
        places,
        (rows, packing.row_length, packing.slots),
        rng.integers(1, vocab_size, row.sum()),
        row,
        row,
        task_id=rng.integers(len(tasks), size=count, dtype=np.int32),
        gold=target,
        teacher=target,
        weight=np.ones(count, np.float32),
      )
    )
  return batches


def time_steps(
  config: config_lib.Config, workdir: Path, steps: int, seeds: int
) -> None:
  """Compiles every batch shape, waits for its turn, and times the steps."""
  plan, host = training_batches(config, workdir, steps, jax.device_count())
  programs = plan.setup.programs
  if config.packing.row_length != worker.ROW_LENGTH:
    host = long_batches(
      plan.tasks,
      plan.encoder.config.vocab_size,
      plan.packing,
      steps,
      jax.device_count(),
    )
  if seeds == 1:
    batches = [programs.put(batch) for batch in host]
  else:
    batches = [
      programs.put_seeds([host[(step + k) % steps] for k in range(seeds)])
      for step in range(steps)
    ]
  packing = dataclasses.replace(
    config.packing,
    row_buckets=tuple({len(batch) for batch in batches}),
    slots=host[0]['weight'].shape[1],
  )
  start = time.perf_counter()
  programs.compile_ahead(packing, (seeds,))
  plans = [each.memory_analysis() for each in programs.compiled().values()]
  compile_seconds = time.perf_counter() - start
  worker.wait_for_turn()

  states = (
    programs.init_state(plan.setup.initial_params(seed), seed)
    for seed in range(seeds)
  )
  state = programs.seeds.stack(states, seeds)
  schedule = step_lib.StepSchedule(1e-5, 1.0, 0.9)

  def run() -> None:
    nonlocal state
    for batch in batches:
      state, _ = programs.train_step(state, batch, schedule)

  def wait() -> None:
    jax.block_until_ready(state)

  run()  # Twice in all before timing: a GPU's graphs are captured then.
  ms = worker.milliseconds(run, wait, steps)
  stats = jax.local_devices()[0].memory_stats() or {}
  with tempfile.TemporaryDirectory() as directory:
    with jax.profiler.trace(directory):
      run()
      wait()
    events = profiling.read_events(Path(directory))
  device_ms = ms
  if events:
    device_ms = profiling.busy_seconds(events) * 1000 / steps
    total = Counter()
    for start, end, name in events:
      total[name] += (end - start) * 1000 / steps
    print(f'{len(events) / steps:.0f} kernels a step')
    for name, milliseconds in total.most_common(60):
      print(f'{milliseconds:8.3f} ms {name[:110]}')
  tokens = np.mean([np.sum(batch['segment_ids'] > 0) for batch in host])
  worker.report(
    ms=ms,
    device_ms=device_ms,
    examples_per_second=seeds * config.multi.batch_size * 1e3 / ms,
    tokens_per_second=seeds * tokens * 1e3 / ms,
    rows=float(np.mean([len(batch) for batch in batches])),
    compile_seconds=compile_seconds,
    peak_bytes=stats.get('peak_bytes_in_use', 0),
    planned_bytes=max(
      each.argument_size_in_bytes + each.temp_size_in_bytes for each in plans
    ),
  )


def time_rates(config: config_lib.Config, workdir: Path, steps: int) -> None:
  """Measures the floor of a packed step: matrix products and memory traffic."""
  plan, host = training_batches(config, workdir, steps)
  encoder = plan.encoder.config
  worker.wait_for_turn()

  n, repeats = 8192, 20
  if jax.default_backend() == 'cpu':
    n = 512
  a, b = jax.random.normal(jax.random.key(0), (2, n, n), jnp.bfloat16)
  product = jax.jit(jnp.matmul)
  copy = jax.jit(lambda x: x + 1)  # reads and writes each number once
  x = jnp.zeros(n * n * 4, jnp.float32)

  def seconds(function, *arguments) -> float:
    def run() -> None:
      for _ in range(repeats):
        result = function(*arguments)
      run.result = result

    run()
    ms = worker.milliseconds(
      run, lambda: jax.block_until_ready(run.result), repeats
    )
    return ms / 1000

  flops_per_second = 2 * n**3 / seconds(product, a, b)
  bytes_per_second = 2 * x.nbytes / seconds(copy, x)
  rows = np.mean([len(batch['weight']) for batch in host])
  flops, optimiser_bytes = floor_work(encoder, float(rows))
  worker.report(
    flops_per_second=flops_per_second,
    bytes_per_second=bytes_per_second,
    floor_ms=1e3
    * (flops / flops_per_second + optimiser_bytes / bytes_per_second),
    rows=float(rows),
  )


def floor_work(
  encoder: family.EncoderConfig, rows: float
) -> tuple[float, float]:
  """Counts operations of a step's matrix products, bytes of its optimiser.

  Forward and twice that backward; the optimiser reads the gradient in two
  bytes, and reads and writes parameter and both moments in four.

  Args:
    encoder: the shape.
    rows: of `ROW_LENGTH` tokens.
  """
  width, tokens = encoder.hidden_size, rows * worker.ROW_LENGTH
  weights = encoder.num_layers * (
    4 * width**2 + 2 * width * encoder.intermediate_size
  )
  attention = encoder.num_layers * 2 * worker.ROW_LENGTH * width
  flops = 3 * 2 * tokens * (weights + attention)
  embeddings = (encoder.vocab_size + encoder.max_positions) * width
  return flops, (weights + embeddings) * (2 + 6 * 4)


def main() -> None:
  args = worker.arguments(__doc__)
  no_dropout = args.mode.endswith('no-attention-dropout')
  config = make_config(
    args.size,
    args.data,
    args.vocab,
    packed=args.mode != 'padded',
    attention_dropout=0.0 if no_dropout else 0.1,
    batch_size=(
      worker.BATCH_SIZE
      if args.row_length == worker.ROW_LENGTH
      else worker.LONG_BATCH_SIZE
    )
    * (len(jax.devices()) if args.mode.startswith('weak') else 1),
    shared=args.mode == 'weak-sharded',
    row_length=args.row_length,
  )
  setup_lib.configure_jax(config, args.workdir)
  match args.mode:
    case 'prepare':
      train.prepare(plan_lib.make_plan(config, args.workdir))
    case 'rates':
      time_rates(config, args.workdir, args.steps)
    case _:
      seeds = _SEEDS if args.mode == 'seeds' else 1
      time_steps(config, args.workdir, args.steps, seeds)


if __name__ == '__main__':
  main()
