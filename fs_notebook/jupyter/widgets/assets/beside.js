function plainTable(label, { columns, rows }, keys) {
  return (
    rows.length > 0 &&
    table(
      label,
      columns.map((name, n) => ({ name, right: n > keys })),
      rows
    )
  );
}

function outcomePart(found) {
  return [
    h(
      'p',
      { role: 'status' },
      h('strong', {}, found.line),
      found.serving !== null && h('span', { class: 'fsw-soft' }, ` v${found.serving} serves`)
    ),
    figures(found.figures),
    found.notes.map(note),
    plainTable('Features in both versions', found.rows, 1),
    h('div', { class: 'fsw-charts' }, found.charts.map(chart)),
    h(
      'details',
      { 'data-key': 'largest' },
      h('summary', {}, 'Largest differences'),
      plainTable('Largest differences', found.examples, 1)
    )
  ];
}

export default widget(
  model => `Versions of ${model.get('name')} side by side`,
  panel => {
    const [head, texts, diff, outcome] = [0, 1, 2, 3].map(() => h('div'));
    panel.body.append(head, texts, diff, outcome);
    const drawHead = () => {
      const [name, labels, choices] = ['name', 'labels', 'choices'].map(one => panel.get(one));
      panel.parts.draw(head, [name, labels, choices], () => {
        const selects = ['First version', 'Second version'].map((label, n) =>
          h(
            'select',
            {
              class: 'fsw-select',
              'aria-label': label,
              'data-key': label,
              on: { change: () => act() }
            },
            choices.map(one => h('option', { value: one, selected: one === labels[n] }, one))
          )
        );
        const act = () =>
          panel.ask('choose', { before: selects[0].value, after: selects[1].value });
        return h(
          'div',
          { class: 'fsw-buttons' },
          h('h2', {}, name),
          selects[0],
          '→',
          selects[1],
          button('Compare again', 'again', () => panel.ask('again'))
        );
      });
    };
    ['name', 'labels', 'choices'].forEach(name => panel.on(name, drawHead));
    const drawTexts = () => {
      const [labels, both] = [panel.get('labels'), panel.get('texts')];
      panel.parts.draw(texts, [labels, both], () =>
        h(
          'div',
          { class: 'fsw-two' },
          both.map((text, n) =>
            h('section', {}, h('h3', {}, labels[n]), sql(text, `Definition of ${labels[n]}`))
          )
        )
      );
    };
    panel.on('texts', drawTexts);
    panel.on('diff', found => drawDiff(panel, diff, found));
    const drawOutcome = () => {
      const [found, refusal] = [panel.get('outcome'), panel.get('refusal')];
      panel.parts.draw(outcome, [found, refusal], () =>
        refusal ? errorBox(refusal) : found && outcomePart(found)
      );
    };
    panel.on('outcome', drawOutcome);
    panel.on('refusal', drawOutcome);
  }
);
