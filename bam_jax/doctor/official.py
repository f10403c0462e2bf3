"""Row counts, column names and label shares of the official GLUE files."""

# Task -> split -> possible numbers of rows. QQP has several numbers: with and
# without the rows that lack columns or a label, and that of TFDS.
ROWS: dict[str, dict[str, tuple[int, ...]]] = {
  'cola': {'train': (8551,), 'dev': (1043,), 'test': (1063,)},
  'sst2': {'train': (67349,), 'dev': (872,), 'test': (1821,)},
  'mrpc': {'train': (3668,), 'dev': (408,), 'test': (1725,)},
  'stsb': {'train': (5749,), 'dev': (1500,), 'test': (1379,)},
  'qqp': {
    'train': (363_846, 363_849, 363_870),
    'dev': (40_430, 40_431),
    'test': (390_965,),
  },
  'mnli': {
    'train': (392_702,),
    'dev_matched': (9815,),
    'dev_mismatched': (9832,),
    'test_matched': (9796,),
    'test_mismatched': (9847,),
    'ax': (1104,),
  },
  'qnli': {'train': (104_743,), 'dev': (5463,), 'test': (5463,)},
  'rte': {'train': (2490,), 'dev': (277,), 'test': (3000,)},
  'wnli': {'train': (635,), 'dev': (71,), 'test': (146,)},
}

# Number of training rows of QNLI v1, before QNLI was split anew.
QNLI_V1_ROWS = 108_436

# Task -> names of the text columns, then the name of the label column, in files
# with a header.
COLUMNS: dict[str, tuple[str, ...]] = {
  'cola': ('sentence', 'label'),
  'sst2': ('sentence', 'label'),
  'mrpc': ('#1 String', '#2 String', 'Quality'),
  'stsb': ('sentence1', 'sentence2', 'score'),
  'qqp': ('question1', 'question2', 'is_duplicate'),
  'mnli': ('sentence1', 'sentence2', 'gold_label'),
  'qnli': ('question', 'sentence', 'label'),
  'rte': ('sentence1', 'sentence2', 'label'),
  'wnli': ('sentence1', 'sentence2', 'label'),
}

# Task with unbalanced labels -> share of the label '1' in the training rows.
# The share reveals swapped labels.
SHARES = {'cola': 0.704, 'sst2': 0.558, 'mrpc': 0.674, 'qqp': 0.369}
