/** The typed client of the server extension's REST routes, under `/fs-notebook/`. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

export type State = 'draft' | 'bootstrapping' | 'live' | 'failing' | 'stopped';

/** A feature group as the server tells it; the same fields as `GroupView` in Python. */
export interface IGroup {
  readonly name: string;
  readonly entity: readonly string[];
  readonly features: readonly { readonly name: string; readonly type: string }[];
  readonly state: State;
  /** The version that serves, if any. */
  readonly version: number | null;
  readonly latest: number;
  /** The version that a roll-back goes to, if any. */
  readonly previous: number | null;
  readonly fingerprint: string;
  /** Progress of the bootstrap, from 0 to 1. */
  readonly progress: number | null;
  /** Events that are in the log and not yet folded. */
  readonly lag: number | null;
  readonly events_per_second: number | null;
  readonly position: string | null;
  readonly error: string | null;
  readonly owner: string | null;
  readonly tags: readonly string[];
  readonly description: string | null;
  readonly definition: string;
  /** The whole text of the cell that defined the latest version, where there was a cell. */
  readonly source: string | null;
  /** ISO 8601; empty where nothing happened yet. */
  readonly updated_at: string;
  readonly actor: string | null;
  /** Where it is in its life: draft, promoted, live, deprecated or retired. */
  readonly status: string;
  readonly deprecated: IDeprecation | null;
  readonly created_by: string;
  readonly created_at: string;
  /** The versions that it is derived from, and the groups that are derived from it. */
  readonly depends_on: readonly string[];
  readonly used_by: readonly string[];
  readonly streams: readonly string[];
  /** What a derived group reads of the request beside the entities. */
  readonly requests?: readonly { readonly name: string; readonly type: string }[];
}

export interface IDeprecation {
  readonly reason: string | null;
  readonly instead: string | null;
  readonly actor: string;
  readonly at: string;
}

/** A thing of the catalog in a lineage. */
export interface INode {
  readonly kind: string;
  readonly name: string;
}

export interface ILineage {
  readonly node: INode;
  /** Those that are read come before those that read them. */
  readonly nodes: readonly (INode & { readonly layer: number; readonly note: string | null })[];
  /** What is read, and what reads it. */
  readonly edges: readonly (readonly [INode, INode])[];
  readonly cut: number;
}

export interface IVersion {
  /** `draft`, or `v` and the number. */
  readonly label: string;
  /** draft, wanted, serves, kept or retired. */
  readonly state: string;
  readonly fingerprint: string;
  readonly actor: string;
  readonly at: string;
}

/** Somebody who reads a group. */
export interface IUse {
  readonly kind: string;
  readonly who: string;
  readonly host: string;
  readonly reads: number;
  readonly last_at: string;
}

/** What somebody measured that a group brings a model. */
export interface ILift {
  readonly target: string;
  readonly metric: string;
  /** helps, no evidence, hurts or suspicious: leak. */
  readonly verdict: string;
  /** By how much the metric is better with it, and the 95% interval of that. */
  readonly difference: number;
  readonly low: number;
  readonly high: number;
  /** Of the definition that was measured. */
  readonly fingerprint: string;
}

/** How values are spread: bins between edges (of times in µs), or the names of texts. */
export interface ISpread {
  readonly counts: readonly number[];
  readonly nulls: number;
  readonly edges?: readonly number[];
  readonly names?: readonly string[];
}

/** One feature's values now, beside those that a model learnt of. */
export interface ILikeness {
  readonly feature: string;
  readonly type: string;
  readonly values: number;
  readonly nulls: number;
  readonly median: number | null;
  readonly now: ISpread | null;
  readonly then: ISpread | null;
  /** How far the two are apart, in nats. */
  readonly psi: number | null;
  /** The training set's name. */
  readonly training: string | null;
  /** The share of values now that lie beyond what was seen in training. */
  readonly beyond: number;
}

/** Quartiles of a feature's values at moments of its history. */
export interface IPast {
  readonly feature: string;
  readonly at: readonly string[];
  readonly low: readonly (number | null)[];
  readonly median: readonly (number | null)[];
  readonly high: readonly (number | null)[];
  readonly entities: number;
}

/** What a group's values are like; `what` says which values they are. */
export interface IPortrait {
  readonly name: string;
  readonly what: string;
  readonly features: readonly ILikeness[];
  /** How many features are left out. */
  readonly more: number;
  readonly past: readonly IPast[];
  readonly notes: readonly string[];
}

/** All that the catalog knows of one group, beyond what the overview says. */
export interface IAbout {
  readonly name: string;
  readonly updated_at: string;
  readonly versions: readonly IVersion[];
  readonly history: readonly {
    readonly at: string;
    readonly actor: string;
    readonly text: string;
  }[];
  readonly lineage: ILineage;
  readonly uses: readonly IUse[];
  /** The newest first. */
  readonly lifts: readonly ILift[];
  /** Where the notebook lies on this server that the latest definition came from, if it does. */
  readonly notebook?: string | null;
  /** Where it lies in its repository or on its server, to be read by people. */
  readonly origin?: string | null;
}

export interface IDiff {
  readonly name: string;
  readonly before: string;
  readonly after: string;
  readonly same: boolean;
  readonly words: readonly string[];
  readonly lines: readonly string[];
}

/** What a promotion would do, told before it is done. */
export interface IOutlook {
  readonly name: string;
  /** The version that it makes, or that it serves again. */
  readonly version: number;
  readonly serving: number | null;
  /** `fold` history, serve what is kept `warm`, `derived` of others, or nothing: it `serves`. */
  readonly work: 'fold' | 'warm' | 'derived' | 'serves';
  readonly streams: readonly string[];
  readonly depends_on: readonly string[];
  readonly events: number | null;
  readonly seconds: number | null;
  readonly changes: readonly string[];
  readonly used_by: readonly INode[];
  readonly readers: readonly IUse[];
  readonly notes: readonly string[];
}

export interface IFound {
  readonly entries: readonly INode[];
  readonly total: number;
  /** Which words were read as others. */
  readonly notes: readonly string[];
}

export interface ICatalog {
  readonly revision: string;
  readonly connection: Readonly<Record<string, unknown>>;
  readonly groups: readonly IGroup[];
}

/** What changed since a revision that the browser has. */
export interface IChanges extends ICatalog {
  readonly since: string;
  /** The names of the groups that went; `groups` are those that came or changed. */
  readonly gone: readonly string[];
}

/** The answer to "anything new since this revision?" when there is nothing. */
export interface IUnchanged {
  readonly revision: string;
  readonly unchanged: true;
}

/** A refusal that the server explained, in the three parts of every error of the package. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly found: string | null,
    readonly remedy: string | null
  ) {
    super(message);
  }

  /** The whole explanation, for a notification. */
  get explanation(): string {
    return [this.message, this.found, this.remedy].filter(Boolean).join(' — ');
  }
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

/** Ask the server; throws `Refusal`, or `ServerConnection.NetworkError` where nobody answers. */
async function request<T>(
  settings: ServerConnection.ISettings,
  path: string,
  init: RequestInit = {}
): Promise<T> {
  const url = URLExt.join(settings.baseUrl, 'fs-notebook', path);
  const response = await ServerConnection.makeRequest(url, init, settings);
  let body: Record<string, unknown> = {};
  try {
    body = (await response.json()) ?? {};
  } catch {
    // A proxy may answer with a page of its own: the status then says enough.
  }
  if (!response.ok) {
    const message = text(body.message) ?? `${response.status} ${response.statusText}`;
    throw new Refusal(response.status, message, text(body.found), text(body.remedy));
  }
  return body as unknown as T;
}

/** What is said of a group, that makes no version. */
export interface IWords {
  readonly owner: string;
  readonly description: string;
  readonly tags: readonly string[];
}

export class CatalogApi {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  /** The whole catalog, or what changed since a revision; `fresh` asks for it as it is now. */
  catalog(since: string, fresh: boolean): Promise<ICatalog | IChanges | IUnchanged> {
    // The query is added after the join, which would escape its question mark.
    const query = since ? URLExt.objectToQueryString({ since, fresh: fresh ? '1' : '' }) : '';
    return request(this._settings, `catalog${query}`);
  }

  /** Promote the definition that this whole cell text holds. */
  promoteSource(source: string): Promise<IGroup> {
    return this._post('promote', { source });
  }

  /** Promote the latest version of a group that the catalog already knows. */
  promote(name: string): Promise<IGroup> {
    return this._post('promote', { name });
  }

  rollback(name: string): Promise<IGroup> {
    return this._post('rollback', { name });
  }

  /** What promoting this cell text, or a group's latest version, would do. */
  outlook(what: { source: string } | { name: string }): Promise<IOutlook> {
    return this._post('outlook', what);
  }

  search(query: string, limit = 500): Promise<IFound> {
    return this._get('search', { q: query, limit: String(limit) });
  }

  about(name: string): Promise<IAbout> {
    return this._get('about', { name, kind: 'group' });
  }

  /** A group's values now, in training and over time; it may take a while. */
  portrait(name: string): Promise<IPortrait> {
    return this._get('portrait', { name });
  }

  diff(name: string, before: string, after: string): Promise<IDiff> {
    return this._get('diff', { name, before, after });
  }

  /** Owner, description and tags, unless somebody changed the group since `seen`. */
  edit(name: string, words: IWords, seen: string): Promise<IAbout> {
    return this._post('edit', { name, kind: 'group', ...words, seen });
  }

  deprecate(
    name: string,
    given: { reason?: string; instead?: string; undo?: boolean }
  ): Promise<IAbout> {
    return this._post('deprecate', { name, kind: 'group', ...given });
  }

  /** Stop a version, or discard the draft where no version is named. */
  retire(name: string, version: number | null): Promise<unknown> {
    return this._post('retire', version === null ? { name } : { name, version });
  }

  private _get<T>(path: string, query: Record<string, string>): Promise<T> {
    return request(this._settings, `${path}${URLExt.objectToQueryString(query)}`);
  }

  private _post<T>(path: string, body: object): Promise<T> {
    return request(this._settings, path, { method: 'POST', body: JSON.stringify(body) });
  }
}
