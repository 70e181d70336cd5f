/** What a group's values are like: drawn now against training, and over time. Read once it is opened. */

import * as React from 'react';

import type { ILikeness, IPast, IPortrait, ISpread } from './api';
import type { IGroupProps } from './context';
import {
  barsPath,
  edgeWords,
  likenessWords,
  pastPaths,
  pastWords,
  psiWords,
  shareWords,
  sharesOf,
  short
} from './portrait';

const WIDTH = 240;
const BARS_PX = 46;
const LINE_PX = 26;

type Trans = Pick<IGroupProps, 'trans'>;

function Drawing(props: { label: string; height: number; children: React.ReactNode }): JSX.Element {
  return (
    <svg
      role="img"
      aria-label={props.label}
      className="fs-Chart"
      viewBox={`0 0 ${WIDTH} ${props.height}`}
      height={props.height}
      preserveAspectRatio="none"
    >
      <title>{props.label}</title>
      {props.children}
    </svg>
  );
}

function Histogram(props: { label: string; type: string; now: ISpread; then: ISpread | null }) {
  const { now, then, type } = props;
  const edges = now.edges ?? [];
  const [shares, former] = [sharesOf(now), then ? sharesOf(then) : []];
  const most = Math.max(...shares, ...former, 0);
  return (
    <>
      <Drawing label={props.label} height={BARS_PX}>
        <path className="fs-Chart-now" d={barsPath(shares, most, WIDTH, BARS_PX, false)} />
        {then && (
          <path className="fs-Chart-then" d={barsPath(former, most, WIDTH, BARS_PX, true)} />
        )}
      </Drawing>
      <div className="fs-Chart-ends fs-Dim" aria-hidden="true">
        <span>{edgeWords(type, edges[0])}</span>
        <span>{edgeWords(type, edges[edges.length - 1])}</span>
      </div>
    </>
  );
}

/** Texts are told one under the other: their bars need their names. */
function Names(props: Trans & { label: string; now: ISpread; then: ISpread | null }): JSX.Element {
  const { label, now, then, trans } = props;
  const [shares, former] = [sharesOf(now), then ? sharesOf(then) : null];
  const most = Math.max(...shares, ...(former ?? []), 1e-9);
  return (
    <ul className="fs-Names" role="list" aria-label={label}>
      {(now.names ?? []).map((name, n) => (
        <li key={name}>
          <span className="fs-Names-name" title={name}>
            {name}
          </span>
          <svg aria-hidden="true" viewBox="0 0 100 10" height={10} preserveAspectRatio="none">
            <rect className="fs-Chart-now" y={1} height={8} width={(shares[n] / most) * 100} />
            {former && <path className="fs-Chart-then" d={`M${(former[n] / most) * 100} 0V10`} />}
          </svg>
          <span className="fs-Dim">
            {former
              ? trans.__('%1, was %2', shareWords(shares[n]), shareWords(former[n]))
              : shareWords(shares[n])}
          </span>
        </li>
      ))}
    </ul>
  );
}

function Figure(props: Trans & { found: ILikeness; past: IPast | undefined }): JSX.Element {
  const { found, past, trans } = props;
  const { feature, now, then, type } = found;
  const facts = likenessWords(trans, found);
  const moved = psiWords(trans, found);
  const label = trans.__('Values of %1 now: %2; %3', feature, facts, moved);
  const drawn = now !== null && now.counts.some(Boolean);
  return (
    <figure className="fs-Figure" aria-label={feature}>
      <figcaption>
        <strong>{feature}</strong> <span className="fs-Dim">{facts}</span>
        <div data-shifted={found.psi !== null && found.psi > 0.25}>{moved}</div>
        {drawn && then && (
          <div className="fs-Dim fs-Legend" aria-hidden="true">
            <span data-of="now">{trans.__('now')}</span>
            <span data-of="then">{trans.__('in %1', found.training ?? '')}</span>
          </div>
        )}
      </figcaption>
      {drawn &&
        (now.names ? (
          <Names trans={trans} label={label} now={now} then={then} />
        ) : (
          <Histogram label={label} type={type} now={now} then={then} />
        ))}
      {past && <Line trans={trans} past={past} />}
    </figure>
  );
}

function Line({ past, trans }: Trans & { past: IPast }): JSX.Element | null {
  const paths = pastPaths(past, WIDTH, LINE_PX);
  const words = pastWords(trans, past);
  if (!paths) {
    return null;
  }
  return (
    <>
      <div className="fs-Dim">
        {trans.__('median and quartiles over time')}
        {': '}
        {trans.__('%1 to %2', short(paths.least), short(paths.most))}
      </div>
      <Drawing label={trans.__('%1 over time: %2', past.feature, words)} height={LINE_PX}>
        <path className="fs-Chart-band" d={paths.band} />
        <path className="fs-Chart-line" d={paths.line} />
      </Drawing>
      <div className="fs-Chart-ends fs-Dim" aria-hidden="true">
        <span>{past.at[0].slice(0, 10)}</span>
        <span>{past.at[past.at.length - 1].slice(0, 10)}</span>
      </div>
    </>
  );
}

function Portrait({ found, trans }: Trans & { found: IPortrait }): JSX.Element {
  const past = new Map(found.past.map(one => [one.feature, one]));
  return (
    <>
      <p className="fs-Dim">{found.what}</p>
      {found.features.map(one => (
        <Figure key={one.feature} trans={trans} found={one} past={past.get(one.feature)} />
      ))}
      {found.more > 0 && (
        <p className="fs-Dim">
          {trans._n(
            '%2 more feature is not drawn',
            '%2 more features are not drawn',
            found.more,
            found.more
          )}
        </p>
      )}
      {found.notes.map(note => (
        <p key={note} className="fs-Dim">
          {note}
        </p>
      ))}
    </>
  );
}

/** A replay is not for every card that is looked at: it begins when the part is opened. */
export function Values({ group, model, trans }: IGroupProps): JSX.Element {
  const [open, setOpen] = React.useState(false);
  const [found, setFound] = React.useState<IPortrait | string | null>(null);
  const { fingerprint, name, version } = group;
  React.useEffect(() => {
    let current = true;
    setFound(null);
    if (open) {
      model.api
        .portrait(name)
        .then(told => current && setFound(told))
        .catch(error => current && setFound(String(error.explanation ?? error.message ?? error)));
    }
    return () => {
      current = false;
    };
  }, [open, name, version, fingerprint, model.writable]);
  return (
    <details className="fs-Part" onToggle={event => setOpen(event.currentTarget.open)}>
      <summary>{trans.__('Values')}</summary>
      {open && found === null && (
        <p className="fs-Dim" role="status">
          {trans.__('looking at values…')}
        </p>
      )}
      {typeof found === 'string' && <p role="alert">{found}</p>}
      {found !== null && typeof found !== 'string' && <Portrait trans={trans} found={found} />}
    </details>
  );
}
