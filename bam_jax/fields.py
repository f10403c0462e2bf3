"""The fields of the configuration, with defaults, meanings and limits.

`field(default, meaning, low, high)` declares a field. The limits are far above
any sensible value; they prevent a typing error from using up a machine's memory
or hours of time. The module `config` also limits products of several fields.
"""

from collections.abc import Mapping
import dataclasses
from typing import Literal

from bam_jax import schema

field = schema.field

_MOST_SEED = 2**32 - 1  # JAX's keys hold 32 bits.
_MOST_SEEDS = 1000
_MOST_VALUES = 100  # values of one hyperparameter in a search
_MOST_TOKENS = 1 << 16  # tokens per row
_MOST_STEPS = 2**31 - 1  # The step counter has 32 bits.

VARIANTS = (
  'single',
  'multi',
  'single_to_single',
  'multi_to_multi',
  'single_to_multi',
)
TRACKERS = ('wandb', 'mlflow')
# Variants whose settings `config.search` chooses.
SEARCHED = ('single_searched', 'multi_searched')


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where the examples come from, and how long they may be."""

  source: Literal['tsv', 'tfds'] = field('tsv', 'source of the GLUE tasks')
  dir: str = field('', 'folder or URL of GLUE TSV files and custom tasks')
  tfds_dir: str = field('', 'TFDS data_dir; empty: its default')
  max_length: int = field(128, 'tokens per example, [CLS] too', 8, _MOST_TOKENS)
  swap: tuple[str, ...] = field((), 'pair tasks trained in both orders')
  bi_encoder: tuple[str, ...] = field(
    (),
    'pair tasks whose two texts are encoded apart and then compared, as'
    ' sentence-transformers are trained; needs mean pooling',
  )
  unlabelled: tuple[str, ...] = field(
    (),
    'TASK=FILE of rows (.tsv, .csv, .jsonl, .parquet) that only teachers label',
  )
  shard_rows: int = field(65536, 'records per TFRecord shard', 1, _MOST_STEPS)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The encoder and its heads."""

  init: str = field(
    '',
    'pretrained weights: a directory, package:NAME/DIR or a hub name, each with'
    ' an optional #sha256=DIGEST; empty: random weights of size `arch`',
  )
  arch: str = field('bert-large', 'size of a random encoder')
  vocab: str = field('', 'vocab.txt of a random encoder; empty: demo words')
  init_vocab: str = field(
    '',
    'vocab.txt that replaces that of `init`; the embedding of a token starts as'
    ' the mean of its old pieces',
  )
  num_layers: int = field(0, 'keep the first n layers; 0: all', 0, 1000)
  layers: tuple[int, ...] = field(
    (), 'layers of `init` to keep, in this order, from 0; empty: all', most=1000
  )
  pooling: Literal['auto', 'cls', 'mean'] = field(
    'cls',
    'vector of an example: [CLS] through the pooler (cls, paper), the mean of'
    ' its tokens (mean), or as `init` was trained (auto)',
  )
  dtype: Literal['auto', 'float32', 'bfloat16'] = field(
    'auto', 'compute dtype; auto: bfloat16 on accelerators, float32 on CPU'
  )
  remat: bool = field(False, 'recompute each layer in the backward pass')
  kernels: bool = field(True, "use the platform's own kernels if it has any")
  dropout_embedding: float = field(
    -1.0,
    "rate on embeddings; -1, here and below: the encoder family's, 0.1 but for"
    ' ModernBERT, 0',
    -1,
    0.99,
  )
  dropout_attention: float = field(-1.0, 'rate on attention weights', -1, 0.99)
  dropout_hidden: float = field(-1.0, 'rate on sublayer outputs', -1, 0.99)
  dropout_head: float = field(-1.0, 'rate on the pooled vector', -1, 0.99)
  head_init: Literal['truncated_normal', 'glorot_uniform', 'linear_probe'] = (
    field(
      'truncated_normal',
      'first weights of the heads: random, as in BERT (standard deviation'
      ' 0.02) or in the released code (glorot_uniform), or a linear model of'
      ' the vectors of the encoder before training (linear_probe), which needs'
      ' mean pooling',
    )
  )
  regression_head: Literal['sigmoid', 'linear'] = field(
    'sigmoid', 'sigmoid (paper) or linear (released code)'
  )
  regression_loss: Literal['squared_error', 'cross_entropy'] = field(
    'squared_error',
    'squared_error (paper), or the cross-entropy of the score on 0-1, which'
    ' needs the sigmoid head',
  )


@dataclasses.dataclass(frozen=True)
class RunLengthConfig:
  """Length, batch size and learning rate of single- or multi-task runs."""

  epochs: float = field(3.0, 'passes over the training rows', 0.0, 1e9)
  min_steps: int = field(0, 'lower bound of steps; 0: none', 0, _MOST_STEPS)
  min_passes: float = field(
    0.0,
    'lower bound of the expected passes over the rows of each task; 0: none',
    0.0,
    1e9,
  )
  max_steps: int = field(0, 'upper bound of steps; 0: none', 0, _MOST_STEPS)
  batch_size: int = field(32, 'examples per step, exactly', 1, 1 << 20)
  learning_rate: float = field(5e-5, 'peak learning rate', 0.0)
  layer_decay: float = field(0.9, 'layer-wise learning-rate decay', 1e-6, 1)
  patience: int = field(
    0, 'evaluations without a better score that end a run; 0: off', 0, 10_000
  )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Settings of BERT's Adam, by default those of BAM's released code."""

  b1: float = field(0.9, 'first-moment decay', 0, 1)
  b2: float = field(0.999, 'second-moment decay', 0, 1)
  eps: float = field(1e-6, 'added to the root of the second moment', 0)
  weight_decay: float = field(0.01, 'not on LayerNorm and biases', 0)
  clip_norm: float = field(1.0, 'global gradient norm; 0: no clipping', 0)
  bias_correction: bool = field(False, "Adam's; the released code has none")
  schedule: Literal['bert', 'warmup_linear'] = field(
    'bert', 'linear decay from step 0 (bert), or from the end of the warm-up'
  )
  warmup: float = field(0.1, 'a share of the steps', 0, 1)
  reduction: Literal['sum', 'mean'] = field('sum', 'loss over the batch')


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How a batch is divided among the tasks."""

  mode: Literal['sampled', 'copies'] = field(
    'sampled',
    'sampled (paper): tasks are drawn by size**exponent; copies (released'
    ' code): small datasets are copied, and each task has a loss weight',
  )
  exponent: float = field(0.75, '0: equal shares, 1: by size', 0, 1)
  loss_weights: tuple[str, ...] = field(
    (),
    "factors of the tasks' losses in multi-task runs: TASK=NUMBER each, and"
    ' `auto` for the other tasks, which divides the loss of a task by that of'
    ' the best constant prediction; a task without a factor has 1',
  )


@dataclasses.dataclass(frozen=True)
class PackingConfig:
  """How examples are packed into the rows of a batch."""

  enabled: bool = field(True, 'several examples per row; else one')
  row_length: int = field(
    0,
    'tokens per row; 0: data.max_length, rounded up to a multiple of 128',
    0,
    _MOST_TOKENS,
  )
  slots: int = field(
    0,
    'most examples per row; 0: 16 per 128 tokens, or 16 if row_length is given',
    0,
    1 << 12,
  )
  row_buckets: tuple[int, ...] = field(
    (), 'allowed row counts, ascending; empty: from the data', 1, 1 << 20, 100
  )
  eval_rows: int = field(
    0,
    'rows of an evaluation batch; 0: 64, or fewer with 8,192 tokens in all; a'
    ' CPU takes at most 2,048 tokens',
    0,
    1 << 20,
  )

  @property
  def used_slots(self) -> int:
    """Largest number of examples in a row; 1 without packing."""
    return self.slots if self.enabled else 1


@dataclasses.dataclass(frozen=True)
class DistillConfig:
  """How students learn from teachers."""

  annealing: Literal['linear', 'constant', 'cosine', 'step'] = field(
    'linear', 'how the weight of the gold labels changes during training'
  )
  constant: float = field(0.5, 'weight of the gold labels, `constant`', 0, 1)
  step_at: float = field(
    0.5, 'fraction of training at which `step` jumps', 0, 1
  )
  temperature: float = field(1.0, "of the teacher's softmax", 1e-3)
  teachers: int = field(
    1, '1: the run of the same seed; k: the first k seeds', 1, _MOST_SEEDS
  )
  folds: int = field(
    1,
    '1: a teacher labels its own training rows; k: it is k runs, and each'
    ' labels the fold of the rows that it was not trained on',
    1,
    10_000,
  )
  unlabelled: bool = field(True, 'students also learn from data.unlabelled')
  logits: str = field(
    '',
    'folder of external logits, written by --mode=label or another program,'
    ' that replace the teachers: docs/guides/small_students.md',
  )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Training settings of all runs; an interval of 0 means: only at the end."""

  accumulate: int = field(1, 'parts a batch is computed in', 1, 1 << 16)
  evaluate_every: int = field(0, 'steps between evaluations', 0, _MOST_STEPS)
  checkpoint_every: int = field(1000, 'steps', 0, _MOST_STEPS)
  log_every: int = field(50, 'steps', 1, 100_000)
  prefetch: int = field(8, 'batches made ahead', 1, 1000)
  deterministic: bool = field(False, 'bit-equal reruns on a GPU, slower')
  keep_optimizer: bool = field(False, 'keep optimizer states of finished runs')
  tensorboard: bool = field(True, 'write TensorBoard events beside the JSONL')
  trackers: tuple[str, ...] = field(
    (), 'wandb, mlflow: also send each line there (extras of these names)'
  )
  seeds_at_once: int = field(
    1, 'seeds of a run trained at once by one program', 1, _MOST_SEEDS
  )
  profile: tuple[int, ...] = field(
    (),
    'first step to trace, and the step after the last; then as many steps are'
    ' timed, to measure the idle time of the device',
    0,
    _MOST_STEPS,
  )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Shape of the device mesh; -1 means all remaining devices."""

  data: int = field(-1, 'replicas', -1, 1 << 20)
  fsdp: int = field(1, 'devices that share one parameter copy', -1, 1 << 20)


@dataclasses.dataclass(frozen=True)
class SearchGrid:
  """Values to try, in all combinations; an empty field: the run's own value."""

  learning_rates: tuple[float, ...] = field(
    (), 'peak learning rates', 1e-30, most=_MOST_VALUES
  )
  layer_decays: tuple[float, ...] = field(
    (), 'layer-wise decays', 1e-6, 1, _MOST_VALUES
  )
  epochs: tuple[float, ...] = field(
    (), 'passes over the training rows', 0.0, 1e9, _MOST_VALUES
  )
  batch_sizes: tuple[int, ...] = field(
    (), 'examples per step', 1, 1 << 20, _MOST_VALUES
  )
  changes_of: tuple[str, ...] = field(
    (),
    'variants whose `changes` are tried: custom ones, and a built-in one for no'
    ' changes',
    most=_MOST_VALUES,
  )


@dataclasses.dataclass(frozen=True)
class SearchConfig(SearchGrid):
  """Hyperparameter search, on separate seeds and held-out training rows.

  The fields of `SearchGrid` are for single-task runs, and the best values are
  chosen for each task separately. `multi` is for multi-task runs.
  """

  multi: SearchGrid = SearchGrid()
  seeds: tuple[int, ...] = field(
    (), 'of every combination; not in config.seeds', 0, _MOST_SEED, _MOST_VALUES
  )
  held_out: float = field(
    0.1, 'part of the training rows for settings, or patience', 1e-6, 0.5
  )
  max_held_out: int = field(
    2000, 'upper bound of these rows per task', 1, _MOST_STEPS
  )


@dataclasses.dataclass(frozen=True)
class PlanConfig:
  """Which runs this command trains, and what the report contains."""

  shard: str = field('', 'i/n: seeds[i::n] and their teachers; empty: all')
  baselines: bool = field(
    True,
    'also score the majority class, and a linear model of the vectors of the'
    ' encoder before training',
  )
  report_texts: Literal['none', 'file', 'page'] = field(
    'file',
    'where the texts of wrong rows are shown: nowhere, in errors.jsonl, or in'
    ' report.html too',
  )


@dataclasses.dataclass(frozen=True)
class DecisionConfig:
  """Whether temperatures and thresholds are fitted to dev predictions."""

  temperature: bool = field(False, 'divide logits to calibrate probabilities')
  thresholds: tuple[str, ...] = field(
    (),
    'TASK=METRIC: of two labels the second, and of several each, is predicted'
    ' above the probability that is best by the metric',
  )


@dataclasses.dataclass(frozen=True)
class VariantConfig:
  """A custom variant, under `config.custom_variants.NAME`."""

  like: Literal[(*VARIANTS, *SEARCHED)] = field(
    VARIANTS[-1], 'the variant it changes'
  )
  tasks: tuple[str, ...] = field((), 'part of config.tasks; empty: all')
  teacher: str = field('', 'variant of the teachers; empty: that of `like`')
  start: str = field(
    '', 'variant whose last parameters single-task runs start from'
  )
  changes: Mapping[str, object] = field(
    {}, 'changed fields of single, multi, sampling and distill'
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
  """A custom task, under `config.custom_tasks.NAME`."""

  kind: str = field(
    'classification',
    'what the label is: classification, regression, multilabel, tagging,'
    ' plain_tagging or qa',
  )
  labels: tuple[str, ...] = field(
    (), 'class labels as in the files; empty: those of the training rows'
  )
  scale: tuple[float, float] = field((0.0, 1.0), 'lowest and highest score')
  train: str | tuple[str, ...] = field(
    '',
    'training file, below data.dir or absolute; several, or a pattern such as'
    ' train-*.csv, are read one after the other',
  )
  dev: str | tuple[str, ...] = field('', 'development file, or several')
  dev_share: float = field(
    0.0, 'if dev is empty: share of the training rows that are dev rows', 0, 0.9
  )
  dev_group: str = field(
    '', 'column whose equal values are all training rows or all dev rows'
  )
  dev_seed: int = field(0, 'of the division by dev_share', 0, _MOST_SEED)
  test: str | tuple[str, ...] = field('', 'unlabelled file; may be empty')
  format: str = field(
    'tsv', 'of all files: tsv, csv, jsonl, parquet, datasets, conll or squad'
  )
  header: bool = field(True, 'TSV, CSV: the first line names the columns')
  text: tuple[str, ...] = field(
    (), 'one or two columns: names, or numbers from 0 without a header'
  )
  label: str = field('label', 'column of the label: name or number')
  separator: str = field(',', 'multilabel: what joins the labels of a cell')
  no_label: tuple[str, ...] = field(
    (),
    'label cells of rows that have no label and are skipped, such as - or'
    ' an empty text',
  )
  metrics: tuple[str, ...] = field(
    (), "empty: the kind's own; docs/guides/task_kinds.md"
  )
  class_weights: tuple[str, ...] = field(
    (),
    'weights of the labels in the loss: LABEL=NUMBER each, or `balanced`, by'
    ' how rare they are in the training rows',
  )
  windows: Literal['', 'mean', 'max'] = field(
    '',
    'read texts over data.max_length in windows, whose outputs are joined by'
    ' mean or max; empty: cut them',
  )
  stride: int = field(
    0,
    'qa, windows: tokens between window starts; 0: half a window',
    0,
    _MOST_TOKENS,
  )
  unanswerable: bool = field(False, 'qa: questions may have no answer')


@dataclasses.dataclass(frozen=True)
class Config:
  """The whole configuration of a command."""

  name: str = field('bam', 'title of the report')
  note: str = field('', 'what a reader must know, printed in the report')
  tasks: tuple[str, ...] = field((), 'names, in the order of the heads')
  variants: tuple[str, ...] = field(VARIANTS, 'what is trained and compared')
  seeds: tuple[int, ...] = field(
    (0,), 'each variant is trained with each', 0, _MOST_SEED, _MOST_SEEDS
  )
  custom_variants: Mapping[str, VariantConfig] = field({}, 'variants by name')
  custom_tasks: Mapping[str, TaskConfig] = field({}, 'tasks by name')
  data: DataConfig = DataConfig()
  model: ModelConfig = ModelConfig()
  single: RunLengthConfig = RunLengthConfig()
  multi: RunLengthConfig = RunLengthConfig(
    epochs=6.0, batch_size=128, learning_rate=1e-4
  )
  optimizer: OptimizerConfig = OptimizerConfig()
  sampling: SamplingConfig = SamplingConfig()
  packing: PackingConfig = PackingConfig()
  distill: DistillConfig = DistillConfig()
  search: SearchConfig = SearchConfig()
  plan: PlanConfig = PlanConfig()
  decisions: DecisionConfig = DecisionConfig()
  train: TrainConfig = TrainConfig()
  mesh: MeshConfig = MeshConfig()
