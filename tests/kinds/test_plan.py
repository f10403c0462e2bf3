"""All kinds in one plan, from files to predictions; in two processes too."""

import json
from pathlib import Path

import pytest

from bam_jax import config as config_lib
from bam_jax.doctor import command as doctor
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import train
from bam_jax.inference import own_file
from tests.configs import kinds as kinds_config
from tests.experiments import several
from tests.kinds import rows as rows_lib

_FLAGS = {
  'train.log_every': 1,
  'train.checkpoint_every': 0,
}


class _Finished:
  """A plan that has been carried out."""

  def __init__(self, folder: Path):
    self.workdir = folder / 'work'
    self.data = folder / 'data'
    self.data.mkdir()
    rows_lib.write(self.data)
    config = kinds_config.get_config()
    config.data.dir = str(self.data)
    config.mesh.data = 4
    config.update_from_flattened_dict(_FLAGS)
    self.config = config_lib.from_config_dict(config)
    self.plan = plan_lib.make_plan(self.config, self.workdir)
    train.run(self.plan)
    predict.predict(self.plan, None)


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> _Finished:
  return _Finished(tmp_path_factory.mktemp('kinds'))


def test_every_task_was_taught_and_is_reported(finished):
  report = json.loads((finished.workdir / 'report.json').read_text())
  done = finished.workdir / 'runs' / 'single_to_multi-s0' / 'DONE'
  scores = json.loads(done.read_text())['scores']
  taught = {path.name for path in (finished.workdir / 'teachers').glob('*/*')}
  assert taught == set(scores) == set(report['config']['tasks'])
  metrics = {task: list(splits['dev']) for task, splits in scores.items()}
  assert metrics['moods'] == ['micro_f1', 'macro_f1']
  assert metrics['names'] == ['span_f1']
  assert metrics['things'] == ['answer_f1', 'exact_match']
  weights = json.loads(done.read_text())['class_weights']
  assert {*weights} == {'moods', 'names'} and weights['names'][:2] == [0.5, 2]
  losses = [
    json.loads(line)
    for line in (done.parent / 'metrics.jsonl').read_text().splitlines()
  ]
  for task in scores:
    assert any(f'loss/{task}' in line for line in losses)


def test_every_kind_has_its_errors_listed(finished):
  """As many as its scores say, each with its texts, surest first."""
  lines = (finished.workdir / 'errors.jsonl').read_text().splitlines()
  found = {}
  for row in map(json.loads, lines):
    assert row['split'] == 'dev' and any(row['texts'].values())
    found.setdefault((row['task'], row['reason']), []).append(row)
  done = finished.workdir / 'runs' / 'single_to_multi-s0' / 'DONE'
  scores = json.loads(done.read_text())['scores']
  for task, metric, count in (
    ('demo_sentiment', 'accuracy', 100), ('things', 'exact_match', 16)
  ):  # fmt: skip
    wrong = count * (1 - scores[task]['dev'][metric] / 100)
    assert len(found[task, 'wrong']) == pytest.approx(wrong)
  for task in scores:
    measure = 'error' if task == 'demo_similarity' else 'confidence'
    values = [row[measure] for row in found[task, 'wrong']]
    assert values[-1] > 0 and values == sorted(values, reverse=True)
  assert found['names', 'wrong'][0]['texts'].keys() == {'words'}
  assert {*found['moods', 'wrong'][0]['gold']} <= {'joy', 'anger', 'fear'}
  page = (finished.workdir / 'report.html').read_text()
  assert page.count('with config.distill.folds=5 students have') == len(scores)


def test_every_kind_has_both_baselines(finished):
  report = json.loads((finished.workdir / 'report.json').read_text())
  for name, found in report['baselines'].items():
    assert set(found['tasks']) == set(report['config']['tasks']), name
  majority = report['baselines']['majority']['tasks']
  # Most words are O and few rows have any mood, so nothing is found.
  assert majority['names'] == {'span_f1': 0}
  # The share of the questions without an answer.
  dev = json.loads((finished.data / 'things' / 'dev.json').read_text())
  questions = [
    question
    for entry in dev['data']
    for paragraph in entry['paragraphs']
    for question in paragraph['qas']
  ]
  share = sum(not each['answers'] for each in questions) / len(questions)
  assert 0 < share < 1
  assert majority['things']['exact_match'] == pytest.approx(100 * share)


def test_predictions_are_written_for_every_unlabelled_row(finished):
  folder = finished.workdir / 'predictions' / 'single_to_multi-s0'
  lines = (folder / 'moods-test.tsv').read_text().splitlines()
  assert lines[0].split('\t') == ['uid', 'prediction', 'joy', 'anger', 'fear']
  assert [line.split('\t')[0] for line in lines[1:]] == [
    f'moods/test/{i}' for i in range(6)
  ]


def test_every_unlabelled_word_has_a_tag(finished):
  folder = finished.workdir / 'predictions' / 'single_to_multi-s0'
  header, *lines = (folder / 'names-test.tsv').read_text().splitlines()
  assert header == 'uid\tprediction'
  sentences = finished.data / 'names' / 'test.conll'
  words = [block.split() for block in sentences.read_text().split('\n\n')]
  tags = [line.split('\t')[1].split() for line in lines]
  assert list(map(len, tags)) == list(map(len, words))
  # Longer than a window.
  assert max(map(len, words)) > 32


def test_every_unlabelled_question_has_an_answer_from_its_context(finished):
  folder = finished.workdir / 'predictions' / 'single_to_multi-s0'
  header, *lines = (folder / 'things-test.tsv').read_text().splitlines()
  assert header == 'uid\tid\tprediction'
  content = json.loads((finished.data / 'things' / 'test.json').read_text())
  contexts = [
    paragraph['context']
    for paragraph in content['data'][0]['paragraphs']
    for _ in paragraph['qas']
  ]
  answers = [line.split('\t')[2] for line in lines]
  assert len(answers) == len(contexts) == 6
  for answer, context in zip(answers, contexts):
    assert answer in ' '.join(context.split())
  assert any(answers)
  # The official scorer takes answers by the questions' ids.
  by_id = json.loads((folder / 'things-test.json').read_text())
  ids = [
    question['id']
    for paragraph in content['data'][0]['paragraphs']
    for question in paragraph['qas']
  ]
  assert list(by_id) == ids
  assert [' '.join(text.split()) for text in by_id.values()] == answers


def test_models_are_exported(finished):
  export.export(finished.plan, None)
  folder = finished.workdir / 'exports' / 'single_to_multi-s0'
  config = json.loads((folder / 'moods' / 'config.json').read_text())
  assert config['problem_type'] == 'multi_label_classification'
  assert config['id2label'] == {'0': 'joy', '1': 'anger', '2': 'fear'}
  config = json.loads((folder / 'names' / 'config.json').read_text())
  assert config['architectures'] == ['BertForTokenClassification']
  assert set(config['label2id']) == {'O', 'B-PER', 'I-PER', 'B-OBJ'}
  config = json.loads((folder / 'things' / 'config.json').read_text())
  assert config['architectures'] == ['BertForQuestionAnswering']
  card = (folder / 'things' / 'README.md').read_text()
  assert 'import AutoModelForQuestionAnswering' in card


def test_doctor_reads_every_split(finished, tmp_path):
  assert doctor.run(finished.config, tmp_path) == 1
  assert 'moods/test' in (tmp_path / 'doctor.md').read_text()


def test_own_words_are_tagged_as_those_of_the_test_file(finished, tmp_path):
  """The other kinds of the plan have no say in it."""
  sentences = (finished.data / 'names' / 'test.conll').read_text()
  source, output = tmp_path / 'in.jsonl', tmp_path / 'out.tsv'
  source.write_text(
    ''.join(
      json.dumps({'words': block.split()}) + '\n'
      for block in sentences.split('\n\n')
    )
  )
  model = predict.load_model(finished.plan, None)
  own_file.predict(model, 'names', str(source), str(output))
  folder = finished.workdir / 'predictions' / 'single_to_multi-s0'
  _, *lines = (folder / 'names-test.tsv').read_text().splitlines()
  tags = [line.split('\t')[1] for line in lines]
  assert output.read_text().splitlines() == [f'{each}\t' for each in tags]


def _run_two_processes(finished: _Finished, workdir: Path, *flags: str) -> None:
  settings = (f'--config.{name}={value}' for name, value in _FLAGS.items())
  flags = f'--config.data.dir={finished.data}', *settings, *flags
  with several.Several(workdir, 2, 2, *flags, config='kinds') as processes:
    processes.finish()


def test_two_processes_open_the_features_of_every_kind(finished, tmp_path):
  two = tmp_path / 'two'
  _run_two_processes(finished, two, '--mode=prepare')
  made = {path.name for path in (two / 'features').iterdir()}
  assert made == set(finished.config.tasks)


@pytest.mark.fault
def test_two_processes_train_as_one(finished, tmp_path):
  """Teachers, their logits, a student of all kinds: 2 x 2 devices as 4."""
  two = tmp_path / 'two'
  _run_two_processes(finished, two)
  several.assert_same_plan(two, finished.workdir, rtol=1e-6)
  done = two / 'runs' / 'single_to_multi-s0' / 'DONE'
  record = json.loads(done.read_text())
  assert record['device'].startswith('4 x')
  assert set(record['scores']) == set(finished.config.tasks)
  for task in finished.config.tasks:
    alone, shared = (
      json.loads((workdir / 'baselines' / task / 'DONE').read_text())
      for workdir in (finished.workdir, two)
    )
    assert shared['about'] == alone['about']
    assert shared['scores']['majority'] == alone['scores']['majority']
  assert (two / 'report.html').exists()
  assert not (two / 'LOCK').exists()
  assert not list(two.glob('.seen*'))
