// Charts of plain numbers, with axes that can be read and a tooltip on each mark.

function niceTicks(low, high, wanted) {
  if (!(high > low)) {
    return [low];
  }
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(one => one >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) {
    found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  }
  return found;
}

const TIME_STEPS_S = [
  1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000,
  7776000, 15552000, 31536000, 63072000, 157680000, 315360000
];

/** Ticks of microseconds since the epoch, and how each reads. */
function timeTicks(low, high, wanted) {
  const rough = (high - low) / 1e6 / wanted;
  const step = (TIME_STEPS_S.find(one => one >= rough) ?? rough) * 1e6;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) {
    const text = new Date(at / 1000).toISOString();
    const day = text.slice(0, 10);
    const time = step < 60e6 ? text.slice(11, 19) : text.slice(11, 16);
    const midnight = time.startsWith('00:00');
    found.push([at, step >= 86400e6 ? day : midnight ? day.slice(5) : time]);
  }
  return found;
}

function axis({ left, right, bottom, top, xs, ys }) {
  const marks = [s('line', { class: 'fsw-axis', x1: left, x2: right, y1: bottom, y2: bottom })];
  xs.forEach(([at, text], n) => {
    const anchor = at < left + 14 ? 'start' : at > right - 14 ? 'end' : 'middle';
    marks.push(s('line', { class: 'fsw-axis', x1: at, x2: at, y1: bottom, y2: bottom + 3 }));
    marks.push(s('text', { x: at, y: bottom + 13, 'text-anchor': anchor, key: n }, text));
  });
  for (const [at, text] of ys) {
    marks.push(s('line', { class: 'fsw-grid', x1: left, x2: right, y1: at, y2: at }));
    marks.push(s('text', { x: left - 5, y: at + 3.5, 'text-anchor': 'end' }, text));
  }
  return marks;
}

function drawing(label, width, height, ...inside) {
  return s(
    'svg',
    {
      role: 'img',
      'aria-label': label,
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      class: 'fsw-chart'
    },
    inside
  );
}

function titled(mark, text) {
  mark.append(s('title', {}, text));
  return mark;
}

/** Texts and their shares: a row each, what was then as a tick on it. */
function nameBars(label, now, then, labels) {
  const both = [now, then].filter(Boolean);
  const totals = both.map(one => one.counts.reduce((a, b) => a + b, one.nulls) || 1);
  const rows = now.names.map((name, n) => [
    name,
    ...both.map((one, k) => one.counts[n] / totals[k])
  ]);
  if (both.some(one => one.nulls)) {
    rows.push(['null', ...both.map((one, k) => one.nulls / totals[k])]);
  }
  const kept = rows.filter(row => row.slice(1).some(Boolean));
  const most = Math.max(...kept.flatMap(row => row.slice(1)), 1e-9);
  const left = 96;
  const width = 300;
  const x = share => left + (share / most) * (width - left - 44);
  const marks = kept.map(([name, share, was], n) => {
    const y = 4 + n * 17;
    const shown = name.length > 15 ? `${name.slice(0, 14)}…` : name;
    const said = `${name}: ${percent(share)} ${labels[0]}${was === undefined ? '' : `, ${percent(was)} ${labels[1]}`}`;
    return s(
      'g',
      {},
      titled(s('rect', { class: 'fsw-hover', x: 0, y, width, height: 17 }), said),
      s('text', { x: left - 6, y: y + 12, 'text-anchor': 'end' }, shown),
      s('rect', {
        class: 'fsw-now',
        x: left,
        y: y + 3,
        width: Math.max(x(share) - left, 0.5),
        height: 11
      }),
      was !== undefined &&
        s('line', { class: 'fsw-then', x1: x(was), x2: x(was), y1: y + 1, y2: y + 16 }),
      s('text', { x: Math.max(x(share), x(was ?? 0)) + 5, y: y + 12 }, percent(share))
    );
  });
  return drawing(label, width, kept.length * 17 + 8, marks);
}

/** A histogram, and over it the outline of another one with the same bins. */
function histogram(label, now, then, labels) {
  const [width, left, right, top, bottom] = [300, 40, 292, 8, 92];
  const both = [now, then].filter(Boolean);
  const totals = both.map(one => one.counts.reduce((a, b) => a + b, one.nulls) || 1);
  const isShare = both.length > 1;
  const heights = both.map((one, k) => one.counts.map(n => (isShare ? n / totals[k] : n)));
  const most = Math.max(...heights.flat()) || 1;
  const [low, high] = [now.edges[0], now.edges[now.edges.length - 1]];
  const x = value => left + ((value - low) / (high - low || 1)) * (right - left);
  const y = value => bottom - (value / most) * (bottom - top);
  // Bins of whole numbers have one each in their middle.
  const isWhole = now.edges[1] - now.edges[0] === 1 && Math.abs(low % 1) === 0.5;
  const amounts = niceTicks(low, high, 4).filter(at => !isWhole || Number.isInteger(at));
  const words = shorts(amounts);
  const xs = now.is_time
    ? timeTicks(low, high, 3).map(([at, text]) => [x(at), text])
    : amounts.map((at, n) => [x(at), words[n]]);
  const ticks = niceTicks(0, most, 3).filter(at => isShare || Number.isInteger(at));
  const edge = value => (now.is_time ? moment(value) : short(value));
  const bars = now.counts.map((n, k) => {
    const [a, b] = [x(now.edges[k]), x(now.edges[k + 1])];
    const range = isWhole
      ? count(now.edges[k] + 0.5)
      : `${edge(now.edges[k])} to ${edge(now.edges[k + 1])}`;
    const was = isShare ? `, ${percent(heights[1][k])} ${labels[1]}` : '';
    const said = isShare ? `${percent(heights[0][k])} ${labels[0]}` : count(n);
    return s(
      'g',
      {},
      titled(
        s('rect', { class: 'fsw-hover', x: a, y: top, width: b - a, height: bottom - top }),
        `${range}: ${said}${was}`
      ),
      s('rect', {
        class: 'fsw-now',
        x: a + 0.5,
        y: y(heights[0][k]),
        width: Math.max(b - a - 1, 0.5),
        height: bottom - y(heights[0][k])
      })
    );
  });
  let outline = null;
  if (isShare) {
    const steps = heights[1].map(
      (value, k) => `H${x(now.edges[k])}V${y(value)}H${x(now.edges[k + 1])}`
    );
    outline = s('path', {
      class: 'fsw-then',
      d: `M${x(low)},${bottom}${steps.join('')}V${bottom}`
    });
  }
  return drawing(
    label,
    width,
    110,
    axis({
      left,
      right,
      bottom,
      top,
      xs,
      ys: ticks.map(at => [y(at), isShare ? percent(at) : short(at)])
    }),
    bars,
    outline
  );
}

/** A further measure of how far two distributions are apart, where it is known. */
function beside(name, measure) {
  return typeof measure === 'number' ? ` · ${name} ${measure.toFixed(3)}` : '';
}

/** A feature's distribution with its caption: `then` is what it is compared with. */
function chart(one) {
  const { feature, type, facts, now, then, labels, psi, ks, js } = one;
  const drawn = now && now.counts.some(Boolean);
  const label = `Distribution of ${feature}: ${facts.join(', ')}`;
  const svg = drawn && (now.names.length ? nameBars : histogram)(label, now, then, labels);
  const legend =
    drawn &&
    then &&
    h(
      'span',
      { class: 'fsw-legend' },
      h('span', { class: 'fsw-swatch fsw-swatch-now' }),
      labels[0],
      h('span', { class: 'fsw-swatch fsw-swatch-then' }),
      labels[1]
    );
  const moved =
    typeof psi === 'number' &&
    h(
      'span',
      {},
      `PSI ${psi.toFixed(3)}${psi > 0.25 ? ': shifted' : ''}${beside('KS', ks)}${beside('JS', js)}`
    );
  return h(
    'figure',
    { 'aria-label': feature },
    h(
      'figcaption',
      {},
      h('b', {}, feature),
      ` ${type}`,
      h('span', {}, facts.join(' · ')),
      legend,
      moved
    ),
    svg
  );
}

/** A feature over time: its median, and the band of its quartiles. */
function pastLine({ feature, at_us, low, median, high, entities }) {
  const [width, left, right, top, bottom] = [300, 40, 292, 8, 62];
  const known = [...low, ...median, ...high].filter(value => value !== null);
  if (known.length === 0) {
    return null;
  }
  let [least, most] = [Math.min(...known), Math.max(...known)];
  if (least === most) {
    [least, most] = [least - 1, most + 1];
  }
  const [first, last] = [at_us[0], at_us[at_us.length - 1]];
  const x = at => left + ((at - first) / (last - first || 1)) * (right - left);
  const y = value => bottom - ((value - least) / (most - least)) * (bottom - top);
  const points = at_us.map((at, n) => n).filter(n => median[n] !== null);
  const path = (values, order) => order.map(n => `${x(at_us[n])},${y(values[n])}`).join('L');
  const label = `${feature} over time: median ${short(median[points[0]])} to ${short(median[points[points.length - 1]])}`;
  const half = (right - left) / at_us.length / 2;
  const heights = niceTicks(least, most, 3);
  const words = shorts(heights);
  return h(
    'figure',
    { 'aria-label': `${feature} over time` },
    h(
      'figcaption',
      {},
      h('b', {}, feature),
      ' over time',
      h('span', {}, `median and quartiles of ${plural(entities, 'entity', 'entities')}`)
    ),
    drawing(
      label,
      width,
      80,
      axis({
        left,
        right,
        bottom,
        top,
        xs: timeTicks(first, last, 3).map(([at, text]) => [x(at), text]),
        ys: heights.map((at, n) => [y(at), words[n]])
      }),
      s('path', {
        class: 'fsw-band',
        d: `M${path(low, points)}L${path(high, [...points].reverse())}Z`
      }),
      s('path', { class: 'fsw-median', d: `M${path(median, points)}` }),
      points.map(n =>
        titled(
          s('rect', {
            class: 'fsw-hover',
            x: x(at_us[n]) - half,
            y: top,
            width: 2 * half,
            height: bottom - top
          }),
          `${moment(at_us[n])} UTC: ${short(median[n])} (${short(low[n])} to ${short(high[n])})`
        )
      )
    )
  );
}

/** A small line of what a value was since the widget looked: [time, value] pairs. */
function sparkline(feature, history) {
  const [width, height] = [150, 30];
  if (history.length < 2) {
    return h('span', { class: 'fsw-soft' }, 'no change seen yet');
  }
  const values = history.map(([, value]) => value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [history[0][0], history[history.length - 1][0]];
  const x = at => 3 + ((at - first) / (last - first || 1)) * (width - 6);
  const y = value =>
    most === least ? height / 2 : height - 4 - ((value - least) / (most - least)) * (height - 8);
  const steps = history.map(([at, value], n) =>
    n ? `H${x(at)}V${y(value)}` : `M${x(at)},${y(value)}`
  );
  const said = `${short(least)} to ${short(most)} in ${Math.round((last - first) / 1e6)} s`;
  return titled(
    drawing(
      `${feature}: ${said}`,
      width,
      height,
      s('path', { class: 'fsw-median', d: steps.join('') }),
      s('circle', { class: 'fsw-now', cx: x(last), cy: y(values[values.length - 1]), r: 2.5 })
    ),
    said
  );
}
