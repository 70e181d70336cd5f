/** The words and the lines of a feature's values: what they are now, in training, and over time. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { IAbout, ILift, ILikeness, IPast, ISpread } from './api';

/** Below the first a distribution is as it was, above the second it is said to have shifted. */
const PSI_SAME = 0.1;
const PSI_SHIFTED = 0.25;

/** A number in about three digits, in the reader's own language. */
export function short(value: number): string {
  return value.toLocaleString(undefined, {
    notation: Math.abs(value) >= 10_000 ? 'compact' : 'standard',
    maximumSignificantDigits: 3
  });
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${short(Math.abs(value))}`;
}

/** A share that is never said to be nothing, or all, while it is not. */
export function shareWords(share: number): string {
  return share > 0 && share < 0.01 ? '<1 %' : `${Math.round(share * 100)} %`;
}

/** An edge of a bin, as a value of the feature's type is read. */
export function edgeWords(type: string, edge: number): string {
  if (type === 'TIMESTAMP' || type === 'DATE') {
    return new Date(edge / 1000).toISOString().slice(0, 10);
  }
  return type === 'INTERVAL' ? `${short(edge / 1e6)} s` : short(edge);
}

/** How far values have moved from those of training: the figure, and what it means. */
export function psiWords(trans: TranslationBundle, found: ILikeness): string {
  const { psi, training } = found;
  if (training === null) {
    return trans.__('in no training set');
  }
  if (psi === null) {
    return trans.__('not compared with %1', training);
  }
  const figure = psi.toFixed(3);
  if (psi < PSI_SAME) {
    return trans.__('PSI %1: as in training (%2)', figure, training);
  }
  return psi <= PSI_SHIFTED
    ? trans.__('PSI %1: moved a little since training (%2)', figure, training)
    : trans.__('PSI %1: shifted since training (%2)', figure, training);
}

/** The facts that stand beside a feature's drawing. */
export function likenessWords(trans: TranslationBundle, found: ILikeness): string {
  const { beyond, median, nulls, values } = found;
  const words = [
    trans._n('%2 value', '%2 values', values, values.toLocaleString()),
    median === null ? '' : trans.__('median %1', short(median)),
    nulls ? trans.__('%1 null', shareWords(nulls / Math.max(values, 1))) : '',
    beyond ? trans.__('%1 beyond what training saw', shareWords(beyond)) : ''
  ];
  return words.filter(Boolean).join(' · ');
}

/** Each bin's share of all values; null values have none of the bins. */
export function sharesOf({ counts, nulls }: ISpread): number[] {
  const all = counts.reduce((sum, n) => sum + n, nulls);
  return counts.map(n => n / Math.max(all, 1));
}

/** A path of bars, or of their outline, over a room of this size; `most` is the tallest share. */
export function barsPath(
  shares: readonly number[],
  most: number,
  width: number,
  height: number,
  outline: boolean
): string {
  const step = width / Math.max(shares.length, 1);
  const place = (at: number): number => Math.round(at * 100) / 100;
  const top = (share: number): number => place(height * (1 - share / (most || 1)));
  const tops = shares.map((share, n) => `V${top(share)}H${place((n + 1) * step)}`);
  const joined = outline ? tops.join('') : tops.map(one => `${one}V${height}`).join('');
  return `M0 ${height}${joined}V${height}`;
}

/** The median's line and the quartiles' band over a room; null where no moment has numbers. */
export function pastPaths(
  past: IPast,
  width: number,
  height: number
): { line: string; band: string; least: number; most: number } | null {
  const times = past.at.map(at => Date.parse(at));
  const points = times.map((_, n) => n).filter(n => past.median[n] !== null);
  if (points.length === 0) {
    return null;
  }
  const value = (values: IPast['low'], n: number): number => values[n] ?? 0;
  const all = points.flatMap(n => [value(past.low, n), value(past.high, n)]);
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const [first, span] = [times[0], times[times.length - 1] - times[0] || 1];
  const at = (values: IPast['low'], n: number): string => {
    const x = ((times[n] - first) / span) * width;
    const share = most > least ? (value(values, n) - least) / (most - least) : 0.5;
    return `${x.toFixed(1)} ${(height * (1 - share)).toFixed(1)}`;
  };
  const path = (values: IPast['low'], order: readonly number[]): string =>
    order.map(n => at(values, n)).join('L');
  // A single moment is a short dash: a line of one point is not drawn.
  const end = points.length === 1 ? 'h4' : '';
  return {
    line: `M${path(past.median, points)}${end}`,
    band: `M${path(past.low, points)}L${path(past.high, [...points].reverse())}Z`,
    least,
    most
  };
}

/** What a line over time shows, for those who do not see it. */
export function pastWords(trans: TranslationBundle, past: IPast): string {
  const known = past.median.map((value, n) => ({ value, at: past.at[n] }));
  const told = known.filter((one): one is { value: number; at: string } => one.value !== null);
  const [first, last] = [told[0], told[told.length - 1]];
  return told.length === 0
    ? ''
    : trans.__(
        'median %1 on %2, %3 on %4',
        short(first.value),
        first.at.slice(0, 10),
        short(last.value),
        last.at.slice(0, 10)
      );
}

/** What was measured last for each target and metric, in words, the newest first. */
export function liftLines(
  trans: TranslationBundle,
  about: Pick<IAbout, 'lifts' | 'versions'>
): string[] {
  const newest = new Map<string, ILift>();
  for (const lift of about.lifts) {
    const key = JSON.stringify([lift.target, lift.metric]);
    if (!newest.has(key)) {
      newest.set(key, lift);
    }
  }
  return [...newest.values()].map(({ verdict, target, metric, difference, low, high, ...lift }) => {
    const of = about.versions.find(version => version.fingerprint === lift.fingerprint);
    const words = trans.__(
      '%1 for %2: %3 %4, 95% interval %5 to %6',
      verdict,
      target,
      metric,
      signed(difference),
      signed(low),
      signed(high)
    );
    return `${words} (${of ? of.label : trans.__('another definition')})`;
  });
}
