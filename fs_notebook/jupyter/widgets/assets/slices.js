// A stream's events over time, with a brush: two sliders and what lies between them.

const CHART = { width: 720, height: 150, left: 46, right: 712, top: 10, bottom: 122 };
const SEND_MS = 80;

class Brush {
  constructor(panel) {
    this.panel = panel;
    this.chosen = null;
    this.place = h('div', { class: 'fsw-brush' });
  }

  take(timeline, chosen) {
    this.timeline = timeline;
    if (!this.timer) {
      this.chosen = chosen && [chosen.from_us, chosen.to_us];
    }
    this.draw();
  }

  get start() {
    return this.timeline.start_us;
  }

  get end() {
    return this.start + this.timeline.step_us * this.timeline.counts.length;
  }

  get ends() {
    return this.chosen ?? [this.start, this.end];
  }

  x(us) {
    const share = (us - this.start) / (this.end - this.start);
    return CHART.left + Math.min(Math.max(share, 0), 1) * (CHART.right - CHART.left);
  }

  /** The nearest edge of a bin to where the pointer is. */
  at(event) {
    const box = this.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * CHART.width;
    const share = (x - CHART.left) / (CHART.right - CHART.left);
    const bins = Math.round(Math.min(Math.max(share, 0), 1) * this.timeline.counts.length);
    return this.start + bins * this.timeline.step_us;
  }

  choose(from, to) {
    const step = this.timeline.step_us;
    const low = Math.max(this.start, Math.min(from, this.end - step));
    const high = Math.min(this.end, Math.max(to, low + step));
    this.chosen = [low, high];
    this.place_();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.panel.ask('brush', { from_us: Math.round(low), to_us: Math.round(high) });
    }, SEND_MS);
  }

  /** Move one end by bins; it does not pass the other. */
  nudge(which, bins) {
    const step = this.timeline.step_us;
    const [from, to] = this.ends;
    if (which === 0) {
      this.choose(Math.min(from + bins * step, to - step), to);
    } else {
      this.choose(from, Math.max(to + bins * step, from + step));
    }
  }

  key(which, event) {
    const many = event.shiftKey ? 10 : 1;
    const all = this.timeline.counts.length;
    const bins = {
      ArrowLeft: -many,
      ArrowDown: -many,
      ArrowRight: many,
      ArrowUp: many,
      PageDown: -10,
      PageUp: 10,
      Home: -all,
      End: all
    }[event.key];
    if (bins !== undefined) {
      event.preventDefault();
      this.nudge(which, bins);
    }
  }

  draw() {
    const { timeline } = this;
    this.panel.parts.draw(this.place, timeline, () => {
      if (!timeline) {
        return h('p', { class: 'fsw-soft' }, 'Looking at the stream …');
      }
      if (timeline.counts.length === 0) {
        return h('p', {}, 'The stream has no events yet.');
      }
      return this.make();
    });
    if (timeline && timeline.counts.length) {
      this.place_();
    }
  }

  make() {
    const { counts, step_us } = this.timeline;
    const { left, right, top, bottom, width, height } = CHART;
    const most = Math.max(...counts) || 1;
    const y = n => bottom - (n / most) * (bottom - top);
    const bars = counts.map((n, k) => {
      const from = this.start + k * step_us;
      const [a, b] = [this.x(from), this.x(from + step_us)];
      return titled(
        s('rect', {
          class: 'fsw-now',
          x: a + 0.25,
          y: y(n),
          width: Math.max(b - a - 0.5, 0.5),
          height: bottom - y(n)
        }),
        `${moment(from)} to ${moment(from + step_us)} UTC: ${count(n)} events`
      );
    });
    this.veils = [0, 1].map(() => s('rect', { class: 'fsw-veil', y: top, height: bottom - top }));
    this.region = s('rect', { class: 'fsw-region', y: top, height: bottom - top });
    this.handles = ['Start of the slice', 'End of the slice'].map((label, which) =>
      s(
        'g',
        {
          class: 'fsw-handle',
          role: 'slider',
          tabindex: 0,
          'aria-label': label,
          'data-key': label,
          'aria-orientation': 'horizontal',
          on: { keydown: event => this.key(which, event) }
        },
        s('rect', { x: -5, y: top, width: 10, height: bottom - top, class: 'fsw-grip' }),
        s('line', { x1: 0, x2: 0, y1: top, y2: bottom }),
        s('rect', {
          x: -4,
          y: (top + bottom) / 2 - 11,
          width: 8,
          height: 22,
          rx: 3,
          class: 'fsw-knob'
        })
      )
    );
    const ticks = niceTicks(0, most, 3).filter(Number.isInteger);
    const svg = drawing(
      `Events of ${this.timeline.stream} over time`,
      width,
      height,
      axis({
        left,
        right,
        bottom,
        top,
        xs: timeTicks(this.start, this.end, 7).map(([at, text]) => [this.x(at), text]),
        ys: ticks.map(at => [y(at), short(at)])
      }),
      bars,
      this.veils,
      this.region,
      this.handles
    );
    // The sliders are in it: a drawing of one name would hide them.
    svg.setAttribute('role', 'group');
    svg.addEventListener('pointerdown', event => this.down(event));
    this.svg = svg;
    return svg;
  }

  down(event) {
    if (event.button !== 0) {
      return;
    }
    event.preventDefault();
    const which = this.handles.findIndex(one => one.contains(event.target));
    const begun = this.at(event);
    const [from, to] = this.ends;
    const moves = this.chosen && event.target === this.region;
    const act = now => {
      const here = this.at(now);
      if (which === 0) {
        this.choose(Math.min(here, to - this.timeline.step_us), to);
      } else if (which === 1) {
        this.choose(from, Math.max(here, from + this.timeline.step_us));
      } else if (moves) {
        const by = Math.min(Math.max(here - begun, this.start - from), this.end - to);
        this.choose(from + by, to + by);
      } else if (here !== begun) {
        this.choose(Math.min(here, begun), Math.max(here, begun));
      }
    };
    const end = () => {
      this.svg.removeEventListener('pointermove', act);
      this.svg.removeEventListener('pointerup', end);
      this.svg.removeEventListener('pointercancel', end);
    };
    this.svg.setPointerCapture(event.pointerId);
    this.svg.addEventListener('pointermove', act);
    this.svg.addEventListener('pointerup', end);
    this.svg.addEventListener('pointercancel', end);
    (this.handles[which] ?? this.handles[1]).focus();
  }

  /** Put brush and sliders where the slice is. */
  place_() {
    const [from, to] = this.ends;
    const [a, b] = [this.x(from), this.x(to)];
    const set = (node, given) =>
      Object.entries(given).forEach(([name, value]) => node.setAttribute(name, value));
    set(this.veils[0], { x: CHART.left, width: Math.max(a - CHART.left, 0) });
    set(this.veils[1], { x: b, width: Math.max(CHART.right - b, 0) });
    set(this.region, {
      x: a,
      width: Math.max(b - a, 0),
      class: `fsw-region${this.chosen ? '' : ' fsw-all'}`
    });
    const step = this.timeline.step_us;
    [from, to].forEach((us, which) => {
      set(this.handles[which], {
        transform: `translate(${this.x(us)} 0)`,
        'aria-valuemin': 0,
        'aria-valuemax': this.timeline.counts.length,
        'aria-valuenow': Math.round((us - this.start) / step),
        'aria-valuetext': `${moment(us)} UTC`
      });
    });
  }
}

function previewPart(found) {
  const columns = found.columns;
  return [
    h('h3', {}, `Preview of ${found.name}`),
    figures(found.figures),
    found.notes.map(note),
    found.entities === 0
      ? h('p', {}, 'No entities in this slice.')
      : [
          table(
            found.entities > found.rows.length
              ? `first ${found.rows.length} of ${plural(found.entities, 'entity', 'entities')}`
              : plural(found.entities, 'entity', 'entities'),
            columns,
            found.rows,
            found.keys
          ),
          h('div', { class: 'fsw-charts' }, found.charts.map(chart))
        ]
  ];
}

export default widget(
  model => `Slice of ${model.get('stream')}`,
  panel => {
    const brush = new Brush(panel);
    const told = h('p', { role: 'status' });
    const line = h('div', { class: 'fsw-buttons' });
    const remark = h('div');
    const shown = h('div', { role: 'region', 'aria-label': 'Preview' });
    panel.body.append(
      h('h2', {}, `Events of ${panel.get('stream')}`),
      brush.place,
      told,
      remark,
      line,
      shown
    );
    const say = () => {
      const [timeline, chosen] = [panel.get('timeline'), panel.get('chosen')];
      brush.take(timeline, chosen);
      if (!timeline) {
        told.textContent = '';
        return;
      }
      const whole = timeline.events ?? timeline.read;
      panel.parts.draw(told, [timeline.read, chosen], () =>
        chosen
          ? [
              `${moment(chosen.from_us)} to ${moment(chosen.to_us)} UTC, about ${plural(chosen.events ?? 0, 'event', 'events')} `,
              h('code', { class: 'fsw-code' }, chosen.text)
            ]
          : [
              `All of it: ${plural(whole, 'event', 'events')}. Drag over the chart, or move its two ends with the arrow keys (Shift: ten steps).`
            ]
      );
      panel.parts.draw(remark, timeline.note, () => timeline.note && note(timeline.note));
    };
    panel.on('timeline', say);
    panel.on('chosen', say);
    panel.on('features', names =>
      panel.parts.draw(line, [names, panel.get('feature')], () => {
        const select = h(
          'select',
          { class: 'fsw-select', 'aria-label': 'Feature to preview', 'data-key': 'feature' },
          names.map(name =>
            h('option', { value: name, selected: name === panel.get('feature') }, name)
          )
        );
        return [
          names.length > 0 && [
            select,
            button(
              'Preview this slice',
              'preview',
              () => panel.ask('preview', { name: select.value }),
              { class: 'fsw-button fsw-first' }
            )
          ],
          button('All of it', 'whole', () => panel.ask('whole')),
          button('Look again', 'again', () => panel.ask('again')),
          names.length === 0 &&
            h('span', { class: 'fsw-soft' }, 'No feature reads this stream yet.')
        ];
      })
    );
    panel.on('shown', found => panel.parts.draw(shown, found, () => found && previewPart(found)));
  }
);
