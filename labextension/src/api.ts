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
}

export interface ICatalog {
  readonly revision: string;
  readonly connection: Readonly<Record<string, unknown>>;
  readonly groups: readonly IGroup[];
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

export class CatalogApi {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  /** The whole catalog, or word that it is still at revision `since`. */
  catalog(since = ''): Promise<ICatalog | IUnchanged> {
    // The query is added after the join, which would escape its question mark.
    const query = since ? URLExt.objectToQueryString({ since }) : '';
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

  private _post(path: string, body: Record<string, string>): Promise<IGroup> {
    return request(this._settings, path, { method: 'POST', body: JSON.stringify(body) });
  }
}
