"""The fields of the configuration, with defaults, limits and meanings."""

from collections.abc import Mapping
import dataclasses
from typing import Literal

from bam_jax import schema

field = schema.field

# Limits beyond any sensible use, so that a typing error does not use up the
# memory or the hours of a machine. `config` checks products of several fields,
# `jobs` what depends on the data.
_MOST_SEED = 2**32 - 1  # JAX's keys hold 32 bits.
_MOST_SEEDS = 1000
_MOST_VALUES = 100  # of one hyperparameter, in a search
_MOST_TOKENS = 1 << 16  # of a row
_MOST_STEPS = 2**31 - 1  # The step counter has 32 bits.

VARIANTS = (
  'single',
  'multi',
  'single_to_single',
  'multi_to_multi',
  'single_to_multi',
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where the examples come from and how long they may be."""

  source: Literal['tsv', 'tfds'] = field('tsv', 'source of the GLUE tasks')
  dir: str = field(
    '', 'folder of the official TSV files and of own tasks; s3:// and gs:// too'
  )
  tfds_dir: str = field('', 'TFDS data_dir; empty: its default')
  max_length: int = field(
    128, 'tokens an example, specials included', 8, _MOST_TOKENS
  )
  swap: tuple[str, ...] = field((), 'pair tasks trained in both orders')
  unlabelled: tuple[str, ...] = field(
    (),
    'TASK=FILE each, .tsv or .jsonl, below dir or absolute: rows without'
    ' labels, which students learn from the teachers alone',
  )
  shard_rows: int = field(65536, 'records a TFRecord shard', 1, _MOST_STEPS)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The encoder and its heads."""

  init: str = field(
    '',
    'pretrained weights: a directory, package:NAME/DIR, or a hub name, all'
    ' with or without #sha256=DIGEST; empty: random weights of size `arch`',
  )
  if_missing: Literal['error', 'random'] = field(
    'error', 'when `init` cannot be loaded: stop, or train from random'
  )
  arch: str = field('bert-large', 'size of a random encoder')
  vocab: str = field('', 'vocab.txt of a random encoder; empty: demo words')
  init_vocab: str = field(
    '',
    'vocab.txt in place of that of `init`: a token starts from the mean of the'
    ' pieces that it is of there',
  )
  num_layers: int = field(0, 'keep the first n layers; 0: all', 0, 1000)
  layers: tuple[int, ...] = field(
    (),
    'keep these layers of `init`, numbered from 0, in this order; empty: as'
    ' num_layers says',
    most=1000,
  )
  dtype: Literal['auto', 'float32', 'bfloat16'] = field(
    'auto', 'compute type; auto: bfloat16 on accelerators, float32 on CPU'
  )
  remat: bool = field(False, 'recompute each layer in the backward pass')
  kernels: bool = field(
    True, "use the platform's own kernels, where it has any"
  )
  dropout_embedding: float = field(0.1, 'rate on the embeddings', 0, 0.99)
  dropout_attention: float = field(0.1, 'rate on attention probs', 0, 0.99)
  dropout_hidden: float = field(0.1, 'rate on sublayer outputs', 0, 0.99)
  dropout_head: float = field(0.1, 'rate on the pooled vector', 0, 0.99)
  regression_head: Literal['sigmoid', 'linear'] = field(
    'sigmoid', 'sigmoid (paper) or linear (released code)'
  )


@dataclasses.dataclass(frozen=True)
class RunLengthConfig:
  """Length, batch and learning rate of the single-task or multi-task runs."""

  epochs: float = field(3.0, 'passes over the training rows', 0.0, 1e9)
  max_steps: int = field(0, 'upper bound on the steps; 0: none', 0, _MOST_STEPS)
  batch_size: int = field(32, 'examples a step, exactly', 1, 1 << 20)
  learning_rate: float = field(5e-5, 'peak', 0.0)
  layer_decay: float = field(0.9, 'layer-wise learning-rate decay', 1e-6, 1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """BERT's Adam. The defaults are those of the released code."""

  b1: float = field(0.9, 'first-moment decay', 0, 1)
  b2: float = field(0.999, 'second-moment decay', 0, 1)
  eps: float = field(1e-6, 'added to the root of the second moment', 0)
  weight_decay: float = field(0.01, 'not on LayerNorm and biases', 0)
  clip_norm: float = field(1.0, 'global gradient norm; 0: no clipping', 0)
  bias_correction: bool = field(False, "Adam's; the released code has none")
  schedule: Literal['bert', 'warmup_linear'] = field(
    'bert',
    'bert: decay from step 0, overridden by the warm-up while it lasts;'
    ' warmup_linear: decay from the end of the warm-up',
  )
  warmup: float = field(0.1, 'share of the steps', 0, 1)
  reduction: Literal['sum', 'mean'] = field('sum', 'loss over the batch')


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How tasks mix inside a batch."""

  mode: Literal['sampled', 'copies'] = field(
    'sampled',
    'sampled (paper): tasks drawn by size**exponent; copies (released code):'
    ' small sets copied, and a weight a task',
  )
  exponent: float = field(0.75, '0: equal shares, 1: by size', 0, 1)


@dataclasses.dataclass(frozen=True)
class PackingConfig:
  """Rows of the device batch."""

  enabled: bool = field(True, 'several examples a row; else one')
  row_length: int = field(128, 'tokens a row', 8, _MOST_TOKENS)
  slots: int = field(16, 'examples a row at most', 1, 1 << 12)
  row_buckets: tuple[int, ...] = field(
    (),
    'allowed numbers of rows a step, ascending; empty: up to six, chosen'
    " from the data's lengths",
    high=1 << 20,
    most=100,
  )
  eval_rows: int = field(64, 'rows of an evaluation batch', 1, 1 << 20)


@dataclasses.dataclass(frozen=True)
class DistillConfig:
  """The student's target."""

  annealing: Literal['linear', 'constant', 'cosine', 'step'] = field(
    'linear', 'how the weight of the gold labels moves over training'
  )
  constant: float = field(0.5, 'gold weight under `constant`', 0, 1)
  step_at: float = field(0.5, 'where `step` jumps, share of training', 0, 1)
  temperature: float = field(1.0, "of the teacher's softmax", 1e-3)
  teachers: int = field(
    1,
    'teachers a task: 1 is the run of the same seed, k the first k seeds',
    1,
    _MOST_SEEDS,
  )
  folds: int = field(
    1,
    'of the training rows; 1: a teacher labels what it was trained on; k: each'
    ' teacher is k runs, which leave a fold out and label that one',
    1,
    10_000,
  )
  unlabelled: bool = field(
    True, 'whether students learn of the rows of data.unlabelled too'
  )
  logits: str = field(
    '',
    'folder of logit sets that teach in place of runs of the plan, written'
    ' by --mode=label or another program: docs/guides/small_students.md',
  )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Settings of every run."""

  accumulate: int = field(1, 'parts a batch is computed in', 1, 1 << 16)
  evaluate_every: int = field(0, 'steps; 0: at the end alone', 0, _MOST_STEPS)
  checkpoint_every: int = field(
    1000, 'steps; 0: at the end alone', 0, _MOST_STEPS
  )
  log_every: int = field(50, 'steps', 1, 100_000)
  prefetch: int = field(8, 'batches made ahead', 1, 1000)
  deterministic: bool = field(False, 'bit-equal reruns on a GPU, slower')
  keep_optimizer: bool = field(
    False, 'keep the optimiser state of finished runs'
  )
  tensorboard: bool = field(True, 'write TensorBoard events beside the JSONL')
  seeds_at_once: int = field(
    1,
    'runs that differ in their seed alone, trained by one program',
    1,
    _MOST_SEEDS,
  )
  profile: tuple[int, ...] = field(
    (),
    'steps of each run to trace, from the first to below the second; as many'
    ' more are timed, for the share of the time in which the device is idle',
    high=_MOST_STEPS,
  )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """The mesh of devices; -1 takes all that are left."""

  data: int = field(-1, 'replicas', -1, 1 << 20)
  fsdp: int = field(
    1, 'devices that share a copy of the parameters', -1, 1 << 20
  )


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """Values of `single`, chosen for each task on seeds of their own.

  All empty: no search.
  """

  learning_rates: tuple[float, ...] = field(
    (), "peaks to try; empty: single's own", most=_MOST_VALUES
  )
  layer_decays: tuple[float, ...] = field(
    (), "layer-wise decays to try; empty: single's own", most=_MOST_VALUES
  )
  seeds: tuple[int, ...] = field(
    (),
    'each pair is tried with each; none of config.seeds',
    high=_MOST_SEED,
    most=_MOST_VALUES,
  )


@dataclasses.dataclass(frozen=True)
class PlanConfig:
  """Which part of the plan is run."""

  shard: str = field(
    '',
    'i/n: config.seeds[i::n] and what these need, i from 0; empty: the whole'
    ' plan. An ensemble of distill.teachers > 1 and the search are needed, and'
    ' so trained, in each shard. --mode=merge brings shards together',
  )


@dataclasses.dataclass(frozen=True)
class VariantConfig:
  """A variant of the user's own, under `config.custom_variants.NAME`."""

  like: Literal[VARIANTS] = field(VARIANTS[-1], 'the variant it changes')
  tasks: tuple[str, ...] = field((), 'part of config.tasks; empty: all')
  teacher: str = field('', 'variant whose runs teach its own; empty: as `like`')
  start: str = field(
    '',
    'variant whose last parameters its single-task runs start from; empty: the'
    ' pretrained encoder',
  )
  changes: Mapping[str, object] = dataclasses.field(
    default_factory=dict,
    metadata={'help': 'fields of single, multi, sampling and distill'},
  )


@dataclasses.dataclass(frozen=True)
class TaskConfig:
  """A task of the user's own, under `config.custom_tasks.NAME`."""

  kind: str = field(
    'classification',
    'what the label is: classification, regression, multilabel, tagging or qa',
  )
  labels: tuple[str, ...] = field((), 'class labels as in the files')
  scale: tuple[float, float] = field((0.0, 1.0), 'lowest and highest score')
  train: str = field('', 'training file, below data.dir or absolute')
  dev: str = field('', 'development file')
  test: str = field('', 'unlabelled file; may be empty')
  format: str = field('tsv', 'of all three files: tsv, jsonl, conll or squad')
  header: bool = field(True, 'TSV: the first line names the columns')
  text: tuple[str, ...] = field(
    (), 'one or two columns: names, or numbers from 0 where no header is'
  )
  label: str = field('label', 'column of the label: name or number')
  metrics: tuple[str, ...] = field(
    (), "empty: the kind's own; docs/guides/task_kinds.md"
  )
  stride: int = field(
    0,
    'qa: tokens of context from the beginning of a window to that of the next;'
    ' 0: half of what a window holds',
    0,
    _MOST_TOKENS,
  )
  unanswerable: bool = field(
    False, 'qa: a question may have no answer, as in SQuAD 2.0'
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """The whole configuration of a command."""

  name: str = field('bam', 'title of the report')
  note: str = field('', 'printed in the report: what a reader must know')
  tasks: tuple[str, ...] = field((), 'names, in the order of the heads')
  variants: tuple[str, ...] = field(VARIANTS, 'what is trained and compared')
  seeds: tuple[int, ...] = field(
    (0,), 'each variant is trained with each', high=_MOST_SEED, most=_MOST_SEEDS
  )
  custom_variants: Mapping[str, VariantConfig] = dataclasses.field(
    default_factory=dict, metadata={'help': "variants of the user's own"}
  )
  custom_tasks: Mapping[str, TaskConfig] = dataclasses.field(
    default_factory=dict,
    metadata={'doc': 'own tasks by name', 'low': None, 'high': None},
  )
  data: DataConfig = field(DataConfig(), '')
  model: ModelConfig = field(ModelConfig(), '')
  single: RunLengthConfig = field(RunLengthConfig(), 'single-task runs')
  multi: RunLengthConfig = field(
    RunLengthConfig(epochs=6.0, batch_size=128, learning_rate=1e-4),
    'multi-task runs',
  )
  optimizer: OptimizerConfig = field(OptimizerConfig(), '')
  sampling: SamplingConfig = field(SamplingConfig(), '')
  packing: PackingConfig = field(PackingConfig(), '')
  distill: DistillConfig = field(DistillConfig(), '')
  search: SearchConfig = field(SearchConfig(), '')
  plan: PlanConfig = field(PlanConfig(), '')
  train: TrainConfig = field(TrainConfig(), '')
  mesh: MeshConfig = field(MeshConfig(), '')
