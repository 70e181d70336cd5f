// Elements are made by the DOM alone: whatever people called their things is text here, never HTML.

const SVG = 'http://www.w3.org/2000/svg';
let made = 0;

function unique(prefix) {
  made += 1;
  return `fsw-${prefix}-${made}`;
}

function filled(node, given, inside) {
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === null || value === undefined || value === false) {
      continue;
    }
    if (name === 'on') {
      for (const [event, act] of Object.entries(value)) {
        node.addEventListener(event, act);
      }
    } else if (name === 'value' || name === 'selected') {
      node[name] = value;
    } else {
      node.setAttribute(name, value === true ? '' : String(value));
    }
  }
  for (const one of inside.flat(Infinity)) {
    if (one !== null && one !== undefined && one !== false) {
      node.append(one instanceof Node ? one : String(one));
    }
  }
  return node;
}

/** An element with attributes, listeners (`on`), and what is in it: nodes and texts. */
function h(name, given, ...inside) {
  return filled(document.createElement(name), given, inside);
}

/** The same of SVG. */
function s(name, given, ...inside) {
  return filled(document.createElementNS(SVG, name), given, inside);
}

/** A button; `key` is what finds it again when its part is drawn anew. */
function button(text, key, act, more) {
  return h(
    'button',
    { type: 'button', class: 'fsw-button', 'data-key': key, on: { click: act }, ...more },
    text
  );
}

/** Parts of a page, each drawn again only when what it shows has changed; the focus stays. */
class Parts {
  constructor() {
    this.known = new Map();
  }

  /** Draw a part into its place, if its data are others than before. */
  draw(place, data, make) {
    const text = JSON.stringify(data);
    if (this.known.get(place) === text) {
      return;
    }
    this.known.set(place, text);
    const active = document.activeElement;
    const key = place.contains(active)
      ? (active.dataset?.key ?? active.getAttribute('data-key'))
      : null;
    const open = new Map(
      [...place.querySelectorAll('details[data-key]')].map(one => [one.dataset.key, one.open])
    );
    place.replaceChildren(...[make(data)].flat(Infinity).filter(Boolean));
    for (const one of place.querySelectorAll('details[data-key]')) {
      one.open = open.get(one.dataset.key) ?? one.open;
    }
    if (key !== null && place.contains(active) === false) {
      const again = [...place.querySelectorAll('[data-key]')].find(
        one => one.getAttribute('data-key') === key && !one.disabled
      );
      (again ?? place.closest('[tabindex]') ?? place.querySelector('button, [tabindex]'))?.focus();
    }
  }
}

function count(number) {
  return Math.round(number).toLocaleString('en-US');
}

/** A rate or amount in about three digits: 950, 51.2k, 5.7M. */
function short(amount, digits = 3) {
  const size = Math.abs(amount);
  for (const [unit, by] of [
    ['G', 1e9],
    ['M', 1e6],
    ['k', 1e3]
  ]) {
    if (size >= 0.9995 * by) {
      return `${Number((amount / by).toPrecision(digits))}${unit}`;
    }
  }
  return size > 0 && size < 1e-3
    ? amount.toExponential(1)
    : `${Number(amount.toPrecision(digits))}`;
}

/** Amounts beside each other, in as many digits as tell them apart: 100k, 100.2k. */
function shorts(amounts) {
  for (let digits = 3; ; digits++) {
    const texts = amounts.map(amount => short(amount, digits));
    if (digits === 9 || new Set(texts).size === texts.length) {
      return texts;
    }
  }
}

function percent(share) {
  if (share > 0 && share < 0.001) {
    return '<0.1%';
  }
  return `${Number((100 * share).toFixed(1))}%`;
}

function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Microseconds since the epoch as UTC text, seconds only where there are some. */
function moment(us) {
  const text = new Date(us / 1000).toISOString().replace('T', ' ');
  const seconds = text.slice(16, 19);
  return seconds === ':00' ? text.slice(0, 16) : text.slice(0, 19);
}

function ago(us, now) {
  const seconds = Math.max((now - us) / 1e6, 0);
  for (const [unit, size] of [
    ['d', 86400],
    ['h', 3600],
    ['min', 60]
  ]) {
    if (seconds >= 2 * size) {
      return `${Math.floor(seconds / size)} ${unit} ago`;
    }
  }
  return seconds < 1.5 ? 'just now' : `${Math.round(seconds)} s ago`;
}

function figures(pairs) {
  return h(
    'dl',
    { class: 'fsw-figures' },
    pairs.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))
  );
}

/** A table that can be scrolled to by keyboard; the first `keys` columns name a row. */
function table(label, columns, rows, keys = 1) {
  const head = columns.map(one =>
    h(
      'th',
      { scope: 'col', class: one.right && 'fsw-right' },
      one.name,
      one.under && h('small', {}, one.under)
    )
  );
  const body = rows.map(row =>
    h(
      'tr',
      {},
      row.map((cell, n) =>
        h(
          n < keys ? 'th' : 'td',
          { scope: n < keys && 'row', class: columns[n].right && 'fsw-right' },
          cell
        )
      )
    )
  );
  return h(
    'div',
    {
      class: 'fsw-scroll',
      tabindex: 0,
      role: 'group',
      'aria-label': label,
      'data-key': `table ${label}`
    },
    h('table', {}, h('caption', {}, label), h('thead', {}, h('tr', {}, head)), h('tbody', {}, body))
  );
}

function diffLines(lines) {
  const shown = lines.map((line, n) => {
    const isHead = n < 2 && /^(---|\+\+\+) /.test(line);
    const sign = isHead
      ? 'fsw-soft'
      : { '+': 'fsw-added', '-': 'fsw-removed', '@': 'fsw-soft' }[line[0]];
    return h('span', { class: `fsw-line ${sign ?? ''}` }, line || ' ');
  });
  return h(
    'pre',
    {
      class: 'fsw-code',
      tabindex: 0,
      role: 'group',
      'aria-label': 'Difference',
      'data-key': 'diff'
    },
    shown
  );
}

function state(word) {
  const kind =
    { starting: 'bootstrapping', restarting: 'bootstrapping', retrying: 'failing' }[word] ?? word;
  return h('span', { class: `fsw-state fsw-${kind}` }, word);
}
