"""The page, by a person's means: labels, a keyboard, what is announced.

In the Chromium of this machine; oracle: what the model says when it is called.
"""

import shutil

import pytest

from bam_jax import config as config_lib
from bam_jax.data import unlabelled
from tests.configs import kinds as kinds_config
from tests.serving import serving
from tests.serving import tiny_model

_CHROMIUM = next(
  filter(
    None,
    map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')),
  ),
  None,
)
pytestmark = pytest.mark.skipif(
  _CHROMIUM is None, reason='no Chromium on this machine'
)


@pytest.fixture(scope='module')
def model():
  return tiny_model.make().model


@pytest.fixture(scope='module')
def browser():
  sync_api = pytest.importorskip('playwright.sync_api')
  with sync_api.sync_playwright() as playwright:
    started = playwright.chromium.launch(
      executable_path=_CHROMIUM, args=['--no-sandbox']
    )
    yield started
    started.close()


@pytest.fixture
def page(browser):
  opened = browser.new_page()
  opened.told = []
  opened.on('console', lambda message: opened.told.append(message.text))
  opened.on('pageerror', lambda error: opened.told.append(str(error)))
  opened.asked = []
  opened.on('request', lambda request: opened.asked.append(request.url))
  yield opened
  opened.close()


def test_a_text_and_then_a_pair(page, model):
  with serving.Served(model) as served:
    address = f'http://127.0.0.1:{served.port}/'
    page.goto(address)
    page.get_by_text('tiny <plan> predicts every task').wait_for()
    page.get_by_label('Text', exact=True).fill('<b>a big</b> dog')
    page.get_by_role('button', name='Predict').click()
    cards = page.get_by_label('Predictions').get_by_role('article')
    page.get_by_role('status').get_by_text('Predictions of 1 task').wait_for()
    (one,) = model.predict(
      model.encode('demo_sentiment', [('<b>a big</b> dog',)])
    )
    assert cards.count() == 2
    shown = cards.nth(0).inner_text()
    assert shown.startswith(f'demo_sentiment\n\n{one.prediction.text}\n')
    for label, share in one.prediction.said['probabilities'].items():
      assert f'{label}\n{100 * share:.1f} %' in shown
    assert 'give a second text' in cards.nth(1).inner_text()

    page.get_by_label('Second text').fill('a hound')
    page.keyboard.press('Control+Enter')
    page.get_by_role('status').get_by_text('Predictions of 2 task').wait_for()
    (pair,) = model.predict(
      model.encode('demo_similarity', [('<b>a big</b> dog', 'a hound')])
    )
    assert (
      f'\n{pair.prediction.said["score"]:.2f}\n' in cards.nth(1).inner_text()
    )
  assert page.told == []
  assert all(url.startswith((address, 'data:')) for url in page.asked)


_MARKUP = '<img src=x onerror=alert(1)>'


def _odd_names():
  """All kinds; names that JavaScript's objects have, labels that are markup."""
  config = kinds_config.get_config()
  tasks = config.custom_tasks
  tasks['constructor'] = config_lib.custom_task(
    **(tasks.moods.to_dict() | {'labels': ('__proto__', _MARKUP, 'a & b')})
  )
  tasks['__proto__'] = config_lib.custom_task(
    **(
      tasks.moods.to_dict()
      | {
        'kind': 'classification',
        'labels': ('constructor', '__proto__'),
        'text': ('one', 'two'),
      }
    )
  )
  tasks['many'] = config_lib.custom_task(
    **(tasks.moods.to_dict() | {'labels': tuple(map(str, range(150)))})
  )
  tasks.names.labels, tasks.names.class_weights = ('O', f'B-{_MARKUP}'), ()
  tasks['parts'] = config_lib.custom_task(
    **(tasks.names.to_dict() | {'kind': 'plain_tagging'})
  )
  config.tasks = (*config.tasks, 'constructor', '__proto__', 'many', 'parts')
  return config


def test_all_kinds_whatever_the_names(page):
  tiny = tiny_model.make(_odd_names, 0.2)
  model = tiny.model
  texts = (f'the {_MARKUP} doctor bought', 'a car  <b>and</b> a boat')
  with serving.Served(model) as served:
    page.goto(f'http://127.0.0.1:{served.port}/')
    page.get_by_label('Text', exact=True).fill(texts[0])
    page.get_by_role('button', name='Predict').click()
    page.get_by_role('status').get_by_text('Predictions of 6 task').wait_for()
    cards = page.get_by_label('Predictions').get_by_role('article')
    assert cards.count() == len(model.tasks) == 9
    shown = dict(zip(model.tasks, cards.all_inner_texts(), strict=True))
    pairs = 'demo_similarity', 'things', '__proto__'
    assert [name for name in shown if 'second text' in shown[name]] == [*pairs]
    page.get_by_label('Second text').fill(texts[1])
    page.get_by_role('button', name='Predict').click()
    page.get_by_role('status').get_by_text('Predictions of 9 task').wait_for()
    shown = dict(zip(model.tasks, cards.all_inner_texts(), strict=True))

    def said(task: str, count: int, texts: tuple[str, str] = texts) -> dict:
      own = unlabelled.unnamed_texts(model.tasks[task], texts[:count], '')
      (result,) = model.predict(model.encode(task, [own]))
      return result.prediction.said

    found = said('__proto__', 2)
    for label, share in found['probabilities'].items():
      assert f'{label}\n{100 * share:.1f} %' in shown['__proto__']
    assert shown['__proto__'].startswith(f'__proto__\n\n{found["label"]}\n')
    found = said('constructor', 1)
    assert (
      f'\n{", ".join(found["labels"]) or "No label"}\n'
      in (shown['constructor'])
    )
    for label, share in found['probabilities'].items():
      assert f'{label}\n{100 * share:.1f} %' in shown['constructor']
    words = [
      f'{word} {tag.partition("-")[2]}'.strip()
      for word, tag in zip(
        texts[0].split(), said('names', 1)['tags'], strict=True
      )
    ]
    assert set(said('names', 1)['tags']) == {'O', f'B-{_MARKUP}'}
    assert shown['names'].split() == ['names', *' '.join(words).split()]
    tagged = zip(texts[0].split(), said('parts', 1)['tags'], strict=True)
    words = ' '.join(f'{word} {tag}' for word, tag in tagged)
    assert shown['parts'].split() == ['parts', *words.split()]
    # The likeliest ten of 150 labels, or all that are predicted.
    found = said('many', 1)
    shares = sorted(found['probabilities'].values(), reverse=True)
    most = max(10, len(found['labels']))
    assert shown['many'].count(' %') == most + 1
    others = f'{150 - most} more, each at most\n{100 * shares[most]:.1f} %'
    assert others in shown['many']
    answer = said('things', 2)['answer']
    assert ' '.join((answer or 'No answer').split()) in shown['things']
    assert page.locator('article img, article b').count() == 0

    # What reads one text refuses an empty one, and the pairs are predicted.
    page.get_by_label('Text', exact=True).fill('')
    page.get_by_role('button', name='Predict').click()
    page.get_by_role('status').get_by_text('Predictions of 2 task').wait_for()
    shown = dict(zip(model.tasks, cards.all_inner_texts(), strict=True))
    for name in ('demo_sentiment', 'moods', 'constructor'):
      assert shown[name].split('\n')[2:] == ["'text' is empty; give a text"]
    assert "'question' is empty; give a text" in shown['things']
    found = said('demo_similarity', 2, ('', texts[1]))
    assert f'\n{found["score"]:.2f}\n' in shown['demo_similarity']
    assert page.told == []
    page.get_by_label('Second text').fill('')
    page.get_by_role('button', name='Predict').click()
    page.get_by_role('alert').get_by_text(
      "The server says: inputs[0]: 'text' is empty; give a text"
    ).wait_for()


def test_what_fails_is_told(page, model):
  with serving.Served(model, body=100) as served:
    page.goto(f'http://127.0.0.1:{served.port}/')
    page.get_by_label('Text', exact=True).fill('dog ' * 40)
    page.get_by_role('button', name='Predict').click()
    alert = page.get_by_role('alert')
    alert.get_by_text('The server says: the body is over 100 bytes').wait_for()
  page.get_by_role('button', name='Predict').click()
  alert.get_by_text('The server does not answer.').wait_for()
