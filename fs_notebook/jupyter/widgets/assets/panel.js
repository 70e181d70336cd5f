// The frame of every widget: its errors, its progress, and what it asks of the kernel.

const ALIVE_MS = 60000;

class Panel {
  constructor(model, el, label) {
    this.model = model;
    this.parts = new Parts();
    this.undo = [];
    this.alert = h('div', { role: 'alert' });
    this.bar = h('div', { class: 'fsw-progress' });
    this.body = h('div');
    // JupyterLab's own keys (arrows, D D) mean cells: inside a widget they mean the widget. Some
    // are bound to whatever has the focus, so that it must say so itself too.
    const own = 'data-lm-suppress-shortcuts';
    this.root = h(
      'div',
      {
        class: 'fsw',
        role: 'group',
        'aria-label': label,
        [own]: 'true',
        on: { focusin: event => event.target.setAttribute(own, 'true') }
      },
      this.alert,
      this.body,
      this.bar
    );
    el.append(this.root);
    this.on('error', error =>
      this.parts.draw(this.alert, error, found => found && errorBox(found))
    );
    this.on('progress', now => this.showProgress(now));
    const timer = setInterval(() => this.ask('seen'), ALIVE_MS);
    this.undo.push(() => clearInterval(timer));
  }

  /** Ask the kernel for something: the name of an action, and its fields. */
  ask(name, fields) {
    this.model.send({ do: name, ...fields });
  }

  get(name) {
    return this.model.get(name);
  }

  /** Draw now, and whenever this part of the state changes. */
  on(name, draw) {
    const act = () => draw(this.model.get(name));
    this.model.on(`change:${name}`, act);
    this.undo.push(() => this.model.off(`change:${name}`, act));
    act();
  }

  showProgress(now) {
    if (now === null) {
      this.bar.replaceChildren();
      this.meter = null;
      return;
    }
    if (!this.meter) {
      const text = h('span', { class: 'fsw-soft' });
      const meter = h('progress', { max: 1, 'aria-label': now.what });
      this.meter = { text, meter };
      this.bar.replaceChildren(
        meter,
        text,
        button('Stop', 'stop', () => this.ask('stop'))
      );
    }
    const { text, meter } = this.meter;
    if (now.share === null) {
      meter.removeAttribute('value');
    } else {
      meter.value = now.share;
    }
    text.textContent = progressWords(now);
  }

  end() {
    this.undo.forEach(one => one());
    this.root.remove();
  }
}

function progressWords({ what, share, events, rate, left_s }) {
  const said = [
    share !== null && `${Math.round(100 * share)}%`,
    events ? `${count(events)} events` : null,
    events && rate ? `${short(rate)}/s` : null,
    leftWords(left_s)
  ].filter(Boolean);
  return [what, said.join(', ')].filter(Boolean).join(': ');
}

function leftWords(seconds) {
  if (seconds === null || seconds === undefined) {
    return null;
  }
  return seconds < 60
    ? `about ${Math.max(Math.round(seconds), 1)} s left`
    : `about ${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s left`;
}

function errorBox({ message, found, remedy }) {
  return h(
    'div',
    { class: 'fsw-error' },
    h('strong', {}, message),
    found && h('div', {}, h('span', { class: 'fsw-soft' }, 'Found: '), found),
    remedy && h('div', {}, h('span', { class: 'fsw-soft' }, 'Try: '), remedy)
  );
}

function note(text) {
  return h('p', { class: 'fsw-note' }, text);
}

/** What `render` of a widget is: its label, and what fills it. */
function widget(label, fill) {
  return {
    render({ model, el }) {
      const panel = new Panel(model, el, label(model));
      fill(panel);
      return () => panel.end();
    }
  };
}
