"""Files in GLUE's layout, of a few rows that are hard to read."""

from pathlib import Path

from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib

ROWS = 12
# The names of the official columns, by task or split. TFDS looks texts and
# labels up by them; the others do not matter.
_HEADERS = {
  'cola': '0,1,2,3',
  'cola/test': 'index,sentence',
  'sst2': 'sentence,label',
  'sst2/test': 'index,sentence',
  'mrpc/test': 'index,id1,id2,#1 String,#2 String',
  'stsb': '0,1,2,3,4,5,6,sentence1,sentence2,score',
  'stsb/test': '0,1,2,3,4,5,6,sentence1,sentence2',
  'qqp': 'id,qid1,qid2,question1,question2,is_duplicate',
  'qqp/test': 'id,question1,question2',
  'mnli/train': '0,1,2,3,4,5,6,7,sentence1,sentence2,label1,gold_label',
  'mnli': '0,1,2,3,4,5,6,7,sentence1,sentence2,a,b,c,d,e,gold_label',
  'mnli/test_matched': '0,1,2,3,4,5,6,7,sentence1,sentence2',
  'mnli/test_mismatched': '0,1,2,3,4,5,6,7,sentence1,sentence2',
  'mnli/ax': 'index,sentence1,sentence2',
  'qnli': 'index,question,sentence,label',
  'qnli/test': 'index,question,sentence',
  'rte': 'index,sentence1,sentence2,label',
  'rte/test': 'index,sentence1,sentence2',
  'wnli': 'index,sentence1,sentence2,label',
  'wnli/test': 'index,sentence1,sentence2',
}


def _text(i: int) -> str:
  return (f'He said "{i}', f'" caf\u00e9 {i} ', f'don \'t\u2028{i} ""')[i % 3]


def _fields(
  task: task_lib.Task, table: task_lib.Table, width: int, i: int
) -> list[str]:
  fields = [f'x{column}' for column in range(width)]
  for place, column in enumerate(table.text):
    fields[column] = _text(i + 5 * place)
  if table.label is not None:
    label = ('3.8', '0.000', '2.11111111111111', '5')[i % 4]
    if not task.kind.has_scale:
      label = task.labels[i % len(task.labels)]
    fields[table.label] = label
  return fields


def write(task: task_lib.Task, split: str, folder: Path) -> None:
  """A file in GLUE's layout; QQP's with rows that TFDS leaves out."""
  table = task.tables[split]
  header = _HEADERS.get(f'{task.name}/{split}', _HEADERS.get(task.name))
  names = header.split(',')
  lines = ['\t'.join(names)] if table.header else []
  lines += ['\t'.join(_fields(task, table, len(names), i)) for i in range(ROWS)]
  if task.name == 'qqp':
    lines[4:4] = ['7\t1', '', 'cut off']
    if split != 'test':
      lines.insert(9, '\t'.join([*'8123', 'no label', '']))
  path = folder / table.file
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines) + '\n')


def write_mrpc_originals(folder: Path) -> dict[str, str]:
  """Microsoft's files, and those that GLUE's script makes of them."""
  task = glue.TASKS['mrpc']
  folder = folder / 'MRPC'
  folder.mkdir()
  header = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String'
  split_lines = {'train': [header], 'dev': [header]}
  all_lines, ids = [header], []
  for i in range(2 * ROWS):
    fields = _fields(task, task.tables['train'], 5, i)
    fields[1:3] = f'10{i}', f'20{i}'
    split = 'dev' if i % 5 in (0, 3) else 'train'
    if split == 'dev':
      ids.insert(0, '\t'.join(fields[1:3]))
    split_lines[split].append('\t'.join(fields))
    all_lines.append('\t'.join(fields))
  for split, lines in split_lines.items():
    (folder / f'{split}.tsv').write_text('\n'.join(lines) + '\n')
  (folder / 'all.txt').write_text('\n'.join(all_lines) + '\n')
  (folder / 'ids.tsv').write_text('\n'.join(ids) + '\n')
  return {
    'train': str(folder / 'all.txt'),
    'dev_ids': str(folder / 'ids.tsv'),
    'test': str(folder / 'test.tsv'),
  }
