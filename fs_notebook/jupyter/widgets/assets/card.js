// A feature's card: what it is, what its values are like, how it is doing, what can be done with it.

const BOX = { width: 150, height: 34, gapX: 46, gapY: 10 };

/** Where each thing of a lineage stands: a column a layer. */
function placed(lineage) {
  const columns = [];
  for (const node of lineage.nodes) {
    (columns[node.layer] ??= []).push(node);
  }
  const tallest = Math.max(...columns.map(one => one?.length ?? 0));
  const places = new Map();
  columns.forEach((column, n) => {
    column.forEach((node, row) => {
      const y = ((tallest - column.length) / 2 + row) * (BOX.height + BOX.gapY) + 4;
      places.set(`${node.kind} ${node.name}`, { node, x: 4 + n * (BOX.width + BOX.gapX), y });
    });
  });
  return {
    places,
    width: columns.length * (BOX.width + BOX.gapX) - BOX.gapX + 8,
    height: tallest * (BOX.height + BOX.gapY) + 4
  };
}

function lineageBox({ node, x, y }, own, open) {
  const text = node.name.length > 20 ? `${node.name.slice(0, 19)}…` : node.name;
  const leads = node.kind === 'group' && !own;
  const act = leads && (() => open(node.name));
  return s(
    'g',
    {
      class: `fsw-node fsw-node-${node.kind.replace(' ', '-')}${own ? ' fsw-node-own' : ''}`,
      role: leads && 'link',
      tabindex: leads && 0,
      'aria-label': leads && `Open ${node.name}`,
      'data-key': `node ${node.name}`,
      on: leads ? { click: act, keydown: event => event.key === 'Enter' && act() } : {}
    },
    s('rect', { x, y, width: BOX.width, height: BOX.height, rx: 4 }),
    s('text', { x: x + 8, y: y + 14, class: 'fsw-node-name' }, text),
    s('text', { x: x + 8, y: y + 27 }, [node.kind, node.note].filter(Boolean).join(', ')),
    s('title', {}, `${node.kind} ${node.name}`)
  );
}

function drawLineage(lineage, open) {
  if (lineage.nodes.length < 2) {
    return h('p', { class: 'fsw-soft' }, 'Nothing is known that it is made of, or that reads it.');
  }
  const { places, width, height } = placed(lineage);
  const own = `${lineage.node.kind} ${lineage.node.name}`;
  const edges = lineage.edges.map(([a, b]) => {
    const [from, to] = [places.get(`${a.kind} ${a.name}`), places.get(`${b.kind} ${b.name}`)];
    const [x0, y0, x1, y1] = [
      from.x + BOX.width,
      from.y + BOX.height / 2,
      to.x,
      to.y + BOX.height / 2
    ];
    const bend = Math.max((x1 - x0) / 2, 16);
    return s('path', {
      class: 'fsw-edge',
      d: `M${x0},${y0}C${x0 + bend},${y0} ${x1 - bend},${y1} ${x1},${y1}`
    });
  });
  const boxes = [...places].map(([key, place]) => lineageBox(place, key === own, open));
  const svg = drawing(`Lineage of ${lineage.node.name}`, width, height, edges, boxes);
  svg.setAttribute('role', 'group');
  const cut = lineage.cut ? h('p', { class: 'fsw-soft' }, `and ${lineage.cut} more`) : null;
  return [
    h(
      'div',
      {
        class: 'fsw-scroll',
        tabindex: 0,
        role: 'group',
        'aria-label': 'Lineage',
        'data-key': 'lineage'
      },
      svg
    ),
    cut
  ];
}

function part(title, open, ...inside) {
  return h(
    'details',
    { open, 'data-key': `part ${title}` },
    h('summary', { 'data-key': `summary ${title}` }, title),
    inside
  );
}

function when(text) {
  return text ? text.slice(0, 16).replace('T', ' ') : '';
}

async function copied(text, shown, status) {
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = 'Copied.';
  } catch {
    // A page that is not served securely may not write there: the text is selected instead.
    const range = document.createRange();
    range.selectNodeContents(shown);
    const selection = document.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    status.textContent = 'Selected: copy it with Ctrl+C.';
  }
}

function versionsPart(panel, versions) {
  const rows = versions.map(one => [
    one.label,
    state(one.state),
    one.fingerprint.slice(0, 12),
    one.actor,
    when(one.at)
  ]);
  const columns = ['version', 'state', 'fingerprint', 'by', 'at, UTC'].map(name => ({ name }));
  const labels = versions.map(one => one.label);
  const choice = (key, chosen) =>
    h(
      'select',
      { 'aria-label': key, 'data-key': key, class: 'fsw-select' },
      labels.map(label => h('option', { value: label, selected: label === chosen }, label))
    );
  if (labels.length < 2) {
    return table('Versions', columns, rows);
  }
  const [before, after] = [choice('Compare version', labels[1]), choice('with version', labels[0])];
  const act = () => panel.ask('compare', { before: before.value, after: after.value });
  return [
    table('Versions', columns, rows),
    h(
      'div',
      { class: 'fsw-buttons' },
      before,
      '→',
      after,
      button('Show the difference', 'compare', act)
    )
  ];
}

/** What was measured last for each target and metric, the newest first. */
function liftWords({ lifts, versions }) {
  const newest = new Map();
  for (const one of lifts) {
    const key = JSON.stringify([one.target, one.metric]);
    if (!newest.has(key)) {
      newest.set(key, one);
    }
  }
  const signed = value => `${value < 0 ? '−' : '+'}${short(Math.abs(value))}`;
  return [...newest.values()].map(one => {
    const of = versions.find(version => version.fingerprint === one.fingerprint);
    return [
      one.verdict,
      `for ${one.target}: ${one.metric} ${signed(one.difference)}, 95% interval ${signed(one.low)} to ${signed(one.high)} (${of ? of.label : 'another definition'})`
    ];
  });
}

/** Draw a card into its places; `open` is how its lineage leads to another one. */
function drawCard(panel, card, places, status, open) {
  const { view } = card;
  const { parts } = panel;
  parts.draw(places.title, [card.name, view.state, view.version, view.entity], () =>
    h(
      'h2',
      { tabindex: -1, 'data-key': 'title' },
      card.name,
      h('span', { class: 'fsw-soft' }, `by ${view.entity.join(', ')}`),
      state(view.state),
      view.version !== null && h('span', { class: 'fsw-soft' }, `v${view.version} serves`)
    )
  );
  parts.draw(
    places.words,
    [view.description, view.deprecated, view.error, view.tags, view.owner],
    () => [
      view.deprecated &&
        note(
          `Deprecated${view.deprecated.reason ? `: ${view.deprecated.reason}` : ''}${view.deprecated.instead ? `; use ${view.deprecated.instead} instead` : ''}`
        ),
      view.error && errorBox({ message: view.error }),
      view.description && h('p', {}, view.description),
      h(
        'p',
        { class: 'fsw-soft' },
        [view.owner && `owner ${view.owner}`, view.tags.map(one => `#${one}`).join(' ')]
          .filter(Boolean)
          .join(' · ')
      )
    ]
  );
  parts.draw(
    places.buttons,
    [card.name, card.snippet, view.state, view.version, view.previous],
    () => {
      const snippet = h('code', { class: 'fsw-code' }, card.snippet);
      return [
        h(
          'div',
          { class: 'fsw-buttons' },
          button('Promote…', 'ask', () => panel.ask('ask_promote', { name: card.name }), {
            'aria-label': `Promote ${card.name}…`
          }),
          view.previous !== null &&
            button(`Roll back to v${view.previous}`, 'roll back', () =>
              panel.ask('roll_back', { name: card.name })
            ),
          button('Copy the serving call', 'copy', () => copied(card.snippet, snippet, status))
        ),
        h('p', {}, snippet)
      ];
    }
  );
  parts.draw(places.text, view.definition, () =>
    part('Definition', true, sql(view.definition, 'Definition'))
  );
  parts.draw(places.health, [card.health, Math.floor(card.at_us / 1e6)], () =>
    part(
      'Health',
      true,
      card.health.length === 0 &&
        h(
          'p',
          { class: 'fsw-soft' },
          view.depends_on.length
            ? 'Computed when it is read: it has no worker of its own.'
            : 'Nothing of it runs yet.'
        ),
      card.health.map(one => [
        h(
          'p',
          { class: 'fsw-told' },
          h('strong', {}, `v${one.version}`),
          one.serving && h('span', { class: 'fsw-soft' }, 'serves')
        ),
        figures(healthWords(one, card.at_us))
      ])
    )
  );
  parts.draw(places.versions, card.versions, () =>
    part('Versions', true, versionsPart(panel, card.versions))
  );
  parts.draw(places.lineage, card.lineage, () =>
    part('Lineage', true, drawLineage(card.lineage, open))
  );
  parts.draw(places.uses, [card.uses, card.history, card.lifts, card.versions], () => [
    card.lifts.length > 0 &&
      part(
        'Lift',
        true,
        liftWords(card).map(([verdict, told]) => h('p', {}, h('strong', {}, verdict), ' ', told))
      ),
    part(
      'Read by',
      false,
      card.uses.length === 0
        ? h('p', { class: 'fsw-soft' }, 'Nobody so far.')
        : h(
            'ul',
            {},
            card.uses.map(one =>
              h(
                'li',
                {},
                `${one.kind} by ${one.who} on ${one.host}, ${plural(one.reads, 'read', 'reads')}, last ${when(one.last_at)}`
              )
            )
          )
    ),
    part(
      'History',
      false,
      h(
        'ul',
        {},
        card.history
          .slice(0, 20)
          .map(one => h('li', {}, `${when(one.at)} ${one.actor}: ${one.text}`))
      )
    )
  ]);
}

/** What the values are like: now, in training, over time. */
function drawValues(panel, place, portrait, past) {
  panel.parts.draw(place, [portrait, past], () => {
    if (!portrait) {
      return null;
    }
    const lines = (past?.features ?? []).map(pastLine);
    const ask =
      past && past.features === null
        ? h(
            'div',
            { class: 'fsw-buttons' },
            button('Draw it over time', 'draw', () => panel.ask('draw')),
            h(
              'span',
              { class: 'fsw-soft' },
              past.events === null ? 'replays the history' : `replays ${count(past.events)} events`
            )
          )
        : null;
    return part(
      'Values',
      true,
      h('p', { class: 'fsw-soft' }, portrait.what),
      h('div', { class: 'fsw-charts' }, portrait.charts.map(chart), lines),
      portrait.more > 0 &&
        h('p', { class: 'fsw-soft' }, `${portrait.more} more features are not drawn`),
      ask,
      portrait.notes.map(one => h('p', { class: 'fsw-soft' }, one))
    );
  });
}
