const STATUS = {
  present: 'a value',
  null: 'null, as the definition says of these events',
  'not found': 'no event of this entity was ever folded',
  expired: 'null: its newest event is older than the time to live'
};

function valueRow(one, at) {
  const fresh = one.newest_us === null ? 'no event' : `newest event ${ago(one.newest_us, at)}`;
  return h(
    'div',
    { class: 'fsw-live-row', role: 'group', 'aria-label': one.feature },
    h(
      'div',
      {},
      h('b', {}, one.feature),
      h('span', { class: 'fsw-soft' }, ` ${one.type}, ${one.group} v${one.version}`)
    ),
    h('div', { class: 'fsw-value' }, one.text),
    h(
      'div',
      {},
      h(
        'span',
        {
          class: `fsw-state fsw-status-${one.status.replace(' ', '-')}`,
          title: STATUS[one.status]
        },
        one.status
      )
    ),
    h(
      'div',
      { class: 'fsw-soft', title: one.newest_us === null ? '' : `${moment(one.newest_us)} UTC` },
      fresh
    ),
    sparkline(one.feature, one.history)
  );
}

export default widget(
  () => 'Live values',
  panel => {
    const [head, rows, foot] = [
      h('form', { class: 'fsw-buttons' }),
      h('div'),
      h('p', { class: 'fsw-soft' })
    ];
    panel.body.append(head, rows, foot);
    const drawHead = () => {
      const [entity, paused] = [panel.get('entity'), panel.get('paused')];
      panel.parts.draw(head, [entity, paused], () => {
        const look = event => {
          event.preventDefault();
          panel.ask('look_at', { texts: inputs.map((one, n) => `${entity[n][0]}=${one.value}`) });
        };
        const inputs = entity.map(([name, text]) =>
          h('input', {
            class: 'fsw-input',
            'aria-label': name,
            value: text,
            'data-key': `key ${name}`,
            spellcheck: 'false',
            // A front end may keep the browser from submitting a form by Enter.
            on: { keydown: event => event.key === 'Enter' && look(event) }
          })
        );
        head.onsubmit = look;
        return [
          entity.map(([name], n) => h('label', {}, `${name} `, inputs[n])),
          h('button', { type: 'submit', class: 'fsw-button', 'data-key': 'look' }, 'Look'),
          button(paused ? 'Go on' : 'Pause', 'pause', () => panel.ask('pause', { on: !paused }))
        ];
      });
    };
    panel.on('entity', drawHead);
    panel.on('paused', drawHead);
    const drawRows = () => {
      const at = panel.get('at_us');
      panel.parts.draw(rows, [panel.get('values'), at], ([values]) =>
        values.map(one => valueRow(one, at))
      );
      foot.textContent = `as of ${moment(at)}${new Date(at / 1000).getSeconds() ? '' : ':00'} UTC${panel.get('paused') ? ', paused' : ', read every second'}`;
    };
    panel.on('values', drawRows);
    panel.on('at_us', drawRows);
    panel.on('paused', drawRows);
    const notices = h('div');
    panel.body.append(notices);
    panel.on('notices', found => panel.parts.draw(notices, found, () => found.map(note)));
  }
);
