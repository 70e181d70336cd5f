// A promotion: the question before it, its progress, its lag, the way back. In a card and by itself.

function lagWords(one) {
  if (one.lag === null) {
    return 'lag not known';
  }
  const late =
    one.lag_s === null
      ? ''
      : `, ${one.lag_s < 10 ? one.lag_s.toFixed(1) : Math.round(one.lag_s)} s`;
  return `lag ${plural(one.lag, 'message', 'messages')}${late}`;
}

function healthWords(one, now) {
  return [
    ['state', state(one.state)],
    ['lag', lagWords(one).replace('lag ', '')],
    ['events folded', count(one.events)],
    ['events/s', one.rate === null ? '·' : short(one.rate)],
    ['last commit at', one.position ?? 'none yet'],
    [
      'newest live event',
      one.folded_us === null ? 'none since the bootstrap' : `published ${ago(one.folded_us, now)}`
    ],
    ['reported', one.reported_us === null ? 'never' : ago(one.reported_us, now)],
    ...(one.verified ? [['verified', one.verified]] : [])
  ];
}

function bootstrapBar(told, one) {
  const share = one.progress;
  const said = progressWords({
    what: '',
    share,
    events: one.events,
    rate: one.rate,
    left_s: told.left_s
  });
  return h(
    'div',
    { class: 'fsw-progress' },
    h('progress', {
      max: 1,
      value: share ?? undefined,
      'aria-label': `Bootstrap of ${told.name} v${one.version}`
    }),
    h('span', {}, [`v${one.version} ${one.state}`, said].filter(Boolean).join(': '))
  );
}

/** Draw a promotion into its place; `dismiss` is how the question is left, where it can be. */
function drawPromotion(panel, place, told, dismiss) {
  panel.parts.draw(place, told, () => {
    if (!told) {
      return null;
    }
    const { name, lines, work, wanted, version, previous, health, state: word } = told;
    const coming = wanted !== null && wanted !== version;
    const moving = health.find(one => one.version === wanted);
    const serving = health.find(one => one.version === version);
    const asks = lines && lines.length > 0 && work !== 'serves';
    const title = coming
      ? `v${wanted} is on its way${version === null ? '' : `; v${version} serves until then`}`
      : version === null
        ? 'Nothing serves yet'
        : `v${version} serves`;
    return [
      h(
        'p',
        { role: 'status', class: 'fsw-told' },
        state(word),
        h('strong', {}, name),
        h('span', {}, title)
      ),
      coming && moving && moving.state !== 'failing' && bootstrapBar(told, moving),
      coming && !moving && h('p', { class: 'fsw-soft' }, 'its worker is being started'),
      health
        .filter(one => one.error)
        .map(one =>
          errorBox({ message: `The worker of v${one.version}: ${one.error}`, found: one.tries })
        ),
      !coming && serving && figures(healthWords(serving, told.at_us).slice(1)),
      !coming &&
        asks &&
        h(
          'dl',
          { class: 'fsw-question', 'aria-label': 'What promoting will do' },
          lines.flatMap(([label, text]) => [h('dt', {}, label), h('dd', {}, text)])
        ),
      h(
        'div',
        { class: 'fsw-buttons' },
        !coming &&
          asks &&
          button(`Promote v${told.target}`, 'promote', () => panel.ask('promote', { name }), {
            class: 'fsw-button fsw-first'
          }),
        coming &&
          button('Stop', 'promote', () => panel.ask('call_off', { name }), {
            'aria-label': `Stop promoting ${name}`
          }),
        !coming &&
          previous !== null &&
          button(`Roll back to v${previous}`, 'back', () => panel.ask('roll_back', { name })),
        dismiss && button('Close', 'dismiss', dismiss)
      )
    ];
  });
}
